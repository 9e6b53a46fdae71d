"""Layout of an optimizer's state along its parameter's axes, and the entries that leave in a cut.

Entries of the parameter's shape, factored rows and columns, and scalars have one meaning. What else there may be is
refused by name; nothing here guesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Int64
from torch import Tensor

Cut = tuple[int, Int64[Tensor, " positions"]]
"""An axis and the positions along it that stay."""

_KEEP = -1
"""In place of an axis: the entry stays as it is."""

_FACTORED = {
    "exp_avg_sq_row": -1,  # transformers' Adafactor: the parameter's shape without its last axis
    "exp_avg_sq_col": -2,  # without the last but one
}


class OptimizerStateError(ValueError):
    """Optimizer state that cannot be cut with its parameter; the message names optimizer, parameter and entry."""


@dataclass(frozen=True)
class Layout:
    """Observations on the entries of one optimizer's state, from parameters of other shapes.

    A vector of length n in the state of an (n, n) matrix may go with its rows or with its columns: only a matrix that
    is not square tells.

    Attributes:
        missing: entry -> the axis of the parameter, counted from the end, that it lacks.
        fixed: entry -> its shape, where that is the same whatever the parameter's shape is.
    """

    missing: Mapping[str, int] = field(default_factory=dict)
    fixed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One value of a parameter's state: `container[key]`, under a dotted name such as "exp_avg" or "moments.0"."""

    container: Any
    key: Any
    name: str
    value: Any
    assignable: bool


def entries(container: Any, key: Any, name: str = "", assignable: bool = True) -> Iterator[Entry]:
    """Everything that is no list or dictionary inside `container[key]`.

    Args:
        container: an optimizer's state.
        key: a parameter.
        name: dotted name of what is inside so far.
        assignable: an entry may be replaced; not so inside a tuple.
    """
    value = container[key]
    if isinstance(value, Mapping):
        inner: Any = value.keys()
        assignable = assignable and isinstance(value, MutableMapping)
    elif isinstance(value, (list, tuple, MutableSequence)) and not isinstance(value, (str, bytes, bytearray)):
        inner = range(len(value))
        assignable = assignable and isinstance(value, MutableSequence)
    else:
        yield Entry(container, key, name, value, assignable)
        return
    for part in tuple(inner):
        yield from entries(value, part, f"{name}.{part}" if name else str(part), assignable)


def axis_of(entry: Entry, parameter: Tensor, cut: Cut, layout: Layout) -> int | None:
    """Axis of an entry to cut; -1 leaves it as it is; None is an unknown layout."""
    if not isinstance(entry.value, Tensor):
        return None if holds_tensors(entry.value) else _KEEP
    axis = _axis(entry.name, entry.value, parameter, cut[0], layout)
    return None if axis not in (None, _KEEP) and not entry.assignable else axis


def cut_entries(container: Any, parameter: Tensor, cut: Cut, layout: Layout) -> Iterator[tuple[Any, Any, Tensor]]:
    """(container, key, new tensor) of every entry that changes; nothing is assigned."""
    if parameter in container:
        for entry in entries(container, parameter):
            if (axis := axis_of(entry, parameter, cut, layout)) not in (None, _KEEP):
                yield entry.container, entry.key, sliced(entry.value, axis, cut[1])


def unknown_entry(container: Any, parameter: Tensor, cut: Cut, layout: Layout) -> str | None:
    """The first entry of a parameter's state that cannot be cut with it, in words; None where all can."""
    if parameter not in container:
        return None
    for entry in entries(container, parameter):
        if axis_of(entry, parameter, cut, layout) is None:
            if isinstance(entry.value, Tensor):
                return (
                    f"state {entry.name!r} has shape {tuple(entry.value.shape)}, the parameter {tuple(parameter.shape)}"
                )
            return f"state {entry.name!r} is a {type(entry.value).__name__} that holds tensors"
    return None


def holds_tensors(value: Any) -> bool:
    """True for an object, not a tensor itself, one of whose attributes is a tensor or holds some."""
    attributes = list(vars(value).values()) if hasattr(value, "__dict__") and not isinstance(value, type) else []
    for slot in getattr(type(value), "__slots__", ()):
        attributes.append(getattr(value, slot, None) if isinstance(slot, str) else None)
    return any(isinstance(inner, Tensor) for outer in attributes for inner in _flat(outer))


def sliced(value: Tensor, axis: int, positions: Tensor) -> Tensor:
    """A copy of its own: a view would keep the whole storage alive."""
    return value.index_select(axis, positions.to(value.device)).contiguous()


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _flat(inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _flat(inner)
    else:
        yield value


def _axis(name: str, value: Tensor, parameter: Tensor, axis: int, layout: Layout) -> int | None:
    if value.shape == parameter.shape:
        return axis
    if value.numel() == 1 or tuple(value.shape) == layout.fixed.get(name):
        return _KEEP
    if value.ndim == parameter.ndim - 1:
        missing = _missing_axis(name, value, parameter, layout)
        if missing is not None:
            return _KEEP if axis == missing else axis - (axis > missing)
    # torch's Adafactor: factored state broadcasts against the parameter
    if value.ndim == parameter.ndim and all(a in (1, b) for a, b in zip(value.shape, parameter.shape, strict=True)):
        return _KEEP if value.shape[axis] == 1 else axis
    return None


def _missing_axis(name: str, value: Tensor, parameter: Tensor, layout: Layout) -> int | None:
    """The axis of the parameter that an entry of one axis less lacks; None where none or several are possible."""
    possible = [
        lacking
        for lacking in range(parameter.ndim)
        if list(value.shape) == [size for at, size in enumerate(parameter.shape) if at != lacking]
    ]
    known = layout.missing.get(name, _FACTORED.get(name))
    if known is not None:
        return known % parameter.ndim if known % parameter.ndim in possible else None
    return possible[0] if len(possible) == 1 else None


def learned(shapes: Mapping[str, list[tuple[tuple[int, ...], tuple[int, ...]]]]) -> Layout:
    """Derive the layout from entries of parameters of several shapes.

    Args:
        shapes: entry -> pairs of parameter's shape and entry's shape.
    """
    missing, fixed = {}, {}
    for name, seen in shapes.items():
        if len({parameter for parameter, _ in seen}) > 2 and len({shape for _, shape in seen}) == 1:
            fixed[name] = seen[0][1]
            continue
        lacking = {
            tuple(
                axis - len(parameter)
                for axis in range(len(parameter))
                if shape == parameter[:axis] + parameter[axis + 1 :]
            )
            for parameter, shape in seen
            if len(parameter) > 1
        }
        if len(lacking) == 1 and len(only := next(iter(lacking))) == 1:
            missing[name] = only[0]
    return Layout(missing, fixed)
