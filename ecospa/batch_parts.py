"""Batches in parts: which entries of what a model is called with hold one row per example, and which are for all.

Batches carry more than tensors with the examples first: positions and masks of one row for every example, flags, nested
mappings, lists. What cannot be told apart is refused by name, as a part with the wrong rows trains on something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ecospa.config import ConfigError

MAIN_INPUTS = ("input_ids", "inputs_embeds", "pixel_values", "input_values", "input_features", "labels")
"""Entries whose first axis is that of the examples, whatever else a batch holds."""

SHARED_INPUTS = ("cache_position", "head_mask", "cross_attn_head_mask", "decoder_head_mask")
"""Entries that are the same for all examples, even if their first axis is as long as a batch by chance."""

Index = slice | list[int]
"""Choice of examples: a run of them, or some by number."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


class Batch:
    """Arguments of one call of a model, seen as examples.

    An entry whose first axis is as long as the batch is taken apart along it, a list of that length too; one of a
    single row is for all. `position_ids` are (tokens,) for all, or (axes, examples, tokens).

    Args:
        entries: what `model(**entries)` takes; mappings in it are looked into.
        main_input: name of the entry that says how many examples there are; None looks for a usual one, then for the
            most frequent length of a first axis.
        shared: further names of entries that are for all examples.

    Attributes:
        entries: the same.
        examples: how many there are.

    Raises:
        ConfigError: it is no mapping, holds no example, or an entry is neither per example nor for all.
    """

    def __init__(self, entries: Mapping[str, Any], main_input: str | None = None, shared: Collection[str] = ()) -> None:
        if not isinstance(entries, Mapping):
            kind = type(entries).__name__
            raise ConfigError(f"the batch is a {kind}; give a mapping of what model(**batch) takes, by name")
        self.entries, self._shared = entries, {*SHARED_INPUTS, *shared}
        self.examples = _examples(entries, main_input, self._shared)
        if self.examples > 1:
            self.rows(slice(0, 1))  # what cannot be taken apart is found before anything runs

    def rows(self, index: Index) -> dict[str, Any]:
        """The batch of some of the examples."""

        def take(tensor: Tensor, axis: int | None) -> Tensor:
            if axis is None:
                return tensor
            if isinstance(index, slice):
                return tensor[(slice(None),) * axis + (index,)]
            return tensor.index_select(axis, torch.tensor(index, device=tensor.device))

        return self._mapped(take, index)

    def stand_in(self, examples: int, dtype: torch.dtype | None = None) -> dict[str, Any]:
        """The batch of so many examples without values, on the meta device.

        Args:
            examples: how many, at most those that there are.
            dtype: of everything that is floating-point; None keeps each its own.
        """

        def empty(tensor: Tensor, axis: int | None) -> Tensor:
            shape = list(tensor.shape)
            if axis is not None:
                shape[axis] = examples
            wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            return torch.empty(shape, dtype=wanted, device="meta")

        return self._mapped(empty, slice(0, examples))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Dotted name and value of every tensor that has one row per example along its first axis."""
        for name, value in _leaves("", self.entries):
            if isinstance(value, Tensor) and self._axis(name, value) == 0:
                yield name, value

    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name and shape of every tensor: batches of equal shapes are split alike."""
        return tuple((name, tuple(v.shape)) for name, v in _leaves("", self.entries) if isinstance(v, Tensor))

    def _mapped(self, change: Callable[[Tensor, int | None], Tensor], index: Index) -> dict[str, Any]:
        return {name: self._changed(name, value, change, index) for name, value in self.entries.items()}

    def _changed(self, name: str, value: Any, change: Callable[[Tensor, int | None], Tensor], index: Index) -> Any:
        if isinstance(value, Tensor):
            return change(value, self._axis(name, value))
        if isinstance(value, Mapping):
            return {key: self._changed(f"{name}.{key}", own, change, index) for key, own in value.items()}
        if isinstance(value, (list, tuple)):
            if len(value) == self.examples and _last(name) not in self._shared:
                value = value[index] if isinstance(index, slice) else type(value)([value[row] for row in index])
                return type(value)(change(own, None) if isinstance(own, Tensor) else own for own in value)
            return type(value)(self._changed(name, own, change, index) for own in value)
        if isinstance(value, _PLAIN) or _last(name) in self._shared or self.examples == 1:
            return value
        way_out = "give tensors" if hasattr(value, "__array__") else f"leave it out, or name it in shared=('{name}',)"
        raise ConfigError(
            f"the batch entry {name} is a {type(value).__name__}, which cannot be taken apart by examples; {way_out} "
            "if it is the same for all examples"
        )

    def _axis(self, name: str, tensor: Tensor) -> int | None:
        """Return the axis of a tensor that is that of the examples; None where it is for all of them."""
        last, shape = _last(name), tensor.shape
        if last in self._shared or tensor.ndim == 0 or (last == "position_ids" and tensor.ndim == 1):
            return None
        if last == "position_ids" and tensor.ndim == 3:
            return 1 if shape[1] == self.examples else None
        if shape[0] == self.examples:
            return 0
        if shape[0] == 1 or self.examples == 1:
            return None
        raise ConfigError(
            f"the batch entry {name} has {shape[0]} rows where the batch has {self.examples} examples; give one row "
            f"per example or a single one, or name it in shared=('{name}',) if it is the same for all examples"
        )


def _examples(entries: Mapping[str, Any], main_input: str | None, shared: Collection[str]) -> int:
    tensors = [
        (_last(name), value)
        for name, value in _leaves("", entries)
        if isinstance(value, Tensor) and value.ndim and _last(name) not in shared
    ]
    if not tensors:
        raise ConfigError(f"the batch holds no tensor with examples, only {', '.join(entries) or 'nothing'}")
    for main in (main_input, *MAIN_INPUTS):
        for name, value in tensors:
            if name == main:
                return _some(len(value), name)
    lengths = Counter(len(value) for _, value in tensors if len(value) != 1) or Counter([1])
    return _some(lengths.most_common(1)[0][0], tensors[0][0])  # of equally frequent ones the first


def _some(examples: int, name: str) -> int:
    if examples == 0:
        raise ConfigError(f"the batch holds no example: {name} has no rows; leave empty batches out")
    return examples


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, own in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), own)
    else:
        yield name, value


def _last(name: str) -> str:
    return name.rpartition(".")[2]
