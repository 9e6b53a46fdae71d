"""Weights of parts: how the losses of the parts of a batch add up to the loss of the batch.

A loss may be a mean over the labels that count, over those after a shift, over examples, or a sum that is divided by a
number which the caller gives. Heads of one library differ, and an argument that a head accepts need not be used by it.
So the model is asked: a few examples together against the same in parts, and the weights that agree are the right ones.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ecospa.batch_parts import Batch
from ecospa.config import ConfigError

LossOf = Callable[[nn.Module, Mapping[str, Any]], Tensor]
"""The loss of a model for a batch."""

Counts = Callable[[Mapping[str, Any]], float | Tensor]
"""Number of labels of a part that count."""

IGNORED = -100
"""The label that losses leave out, in PyTorch and in transformers."""

SUM, EXAMPLES = "as they are", "by examples"
"""Names of two weightings; the others are named by the entry whose values they count."""

_ASKED = 8
"""Examples that a model is asked about at most."""

_TRIES = 4
"""Times that it is asked again while rounding hides which weights are right."""

_SHIFTING = re.compile(r"CausalLM|LMHead|DoubleHeads")


class LossWeights:
    """Finds the weights of parts, checks them against the model, and remembers what it found.

    Args:
        model: what is trained.
        loss: its loss for a batch.
        mixed: it computes in 16 bits.
        counted: how many labels of a part count, or the name of the entry that holds them (-100 does not count); then
            the model is not asked. None asks it.
    """

    def __init__(
        self, model: nn.Module, loss: LossOf, mixed: bool = False, counted: Counts | str | None = None
    ) -> None:
        self.model, self.loss, self.mixed, self.counted = model, loss, mixed, counted
        self._open: list[str] = []
        self._tries = 0

    def shares(self, batch: Batch, parts: list[list[int]], most: int) -> list[float]:
        """Weight of every part: sum_p share_p * loss(part p) = loss(batch), and so for the gradients.

        Args:
            batch: a whole batch.
            parts: examples of every part.
            most: examples that may go through the model at once.

        Raises:
            ConfigError: no weights make the losses of parts that of the batch, or `counted` is not usable.
        """
        if self.counted is not None:
            return _shares(self._given(batch, parts), [[number] for number in range(len(parts))], parts)
        table = candidates(batch, self.model)
        names = [name for name in self._open if name in table]
        if not names:
            names, self._tries = list(table), 0
        found = {name: _shares(table[name], parts, parts) for name in names}
        agreed = all(_close(found[name], found[names[0]]) for name in names)
        if (not self._open or not agreed) and self._tries < _TRIES:
            self._tries += 1
            right = self._tested(batch, {name: table[name] for name in names}, most)
            if right is None:  # a loss that is not finite tells nothing
                return found[names[0]]
            self._open = names = right
        return found[names[0]]

    def _given(self, batch: Batch, parts: list[list[int]]) -> list[float]:
        counted = self.counted
        if isinstance(counted, str):
            if counted not in batch.entries:
                raise ConfigError(f"counted is {counted!r}, which the batch lacks; it has {', '.join(batch.entries)}")
            return [float((batch.rows(part)[counted] != IGNORED).sum()) for part in parts]
        assert counted is not None
        return [float(counted(batch.rows(part))) for part in parts]

    def _tested(self, batch: Batch, table: Mapping[str, list[float] | None], most: int) -> list[str] | None:
        """Names of the weightings that agree with the model; None where its loss is not finite."""
        self._check_batch_norm()
        groups = _groups(batch, table, min(max(most, 2), _ASKED))
        with _undisturbed(self.model):
            whole = self._value(batch, [number for group in groups for number in group])
            losses = [self._value(batch, group) for group in groups]
        if whole != whole or abs(whole) == float("inf"):
            return None
        summed = {name: _summed(_shares(counts, groups, groups), losses) for name, counts in table.items()}
        noise, limit = self._rounding()
        size = max(abs(whole), *(abs(loss) for loss in losses if loss == loss), 1e-30)
        errors = {name: abs(value - whole) / size for name, value in summed.items()}
        errors = {name: error if error == error else float("inf") for name, error in errors.items()}
        best = min(errors.values())
        if best > limit:
            raise ConfigError(self._no_weights(whole, summed, sum(map(len, groups))))
        return [name for name, error in errors.items() if error <= max(noise, 10 * best)]

    def _value(self, batch: Batch, examples: list[int]) -> float:
        loss = self.loss(self.model, batch.rows(examples))
        if loss.numel() != 1:
            raise ConfigError(
                f"the loss of {type(self.model).__name__} has shape {tuple(loss.shape)}; make it one number"
            )
        return float(loss)

    def _rounding(self) -> tuple[float, float]:
        """Relative differences of losses that rounding makes, and beyond which they are not equal."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.is_floating_point()]
        cuda = any(parameter.is_cuda for parameter in parameters)
        half = any(parameter.element_size() < 4 for parameter in parameters)
        if half or self.mixed or torch.is_autocast_enabled("cuda" if cuda else "cpu"):
            return 1e-2, 5e-2
        return (1e-3, 5e-3) if cuda else (4e-6, 3e-5)  # products of float32 may be rounded to ten bits on CUDA

    def _check_batch_norm(self) -> None:
        for name, module in self.model.named_modules():
            if isinstance(module, _BatchNorm) and module.training:
                raise ConfigError(
                    f"{name} is a {type(module).__name__}, whose statistics are those of the examples that go through "
                    "together: parts of a batch do not add up to it; raise memory_budget until the whole batch fits, "
                    "or put it into evaluation mode"
                )

    def _no_weights(self, whole: float, summed: Mapping[str, float], examples: int) -> str:
        tried = ", ".join(f"{value:.6g} weighed {name}" for name, value in summed.items())
        return (
            f"the loss of {type(self.model).__name__} is {whole:.6g} for {examples} examples together, and in parts "
            f"{tried}: it depends on which examples go together (a contrastive or balancing term, means over several "
            "kinds of labels, weights of classes), so parts do not add up to the batch; raise memory_budget until the "
            "whole batch fits, divide a sum by a number that does not depend on the part, or give MemoryBudget counted="
        )


def candidates(batch: Batch, model: nn.Module) -> dict[str, list[float] | None]:
    """Weightings that losses use, the likeliest first: what counts in every example; None is a sum.

    Args:
        batch: a batch.
        model: says by its class whether labels are shifted; the model's answers decide, this only breaks ties.
    """
    counts: dict[str, Tensor] = {}
    shifting = _SHIFTING.search(f"{type(model).__name__} {getattr(model, 'loss_type', None)}") is not None
    tensors = dict(batch.tensors())
    length = next((value.shape[1] for name, value in tensors.items() if name in ("input_ids", "inputs_embeds")), None)
    for name in sorted(tensors, key=lambda name: name != "labels"):
        labels = tensors[name]
        if name.endswith("_positions") and length is not None and labels.ndim <= 2:
            counts[f"by {name}"] = labels.reshape(len(labels), -1) < length
        elif _holds_labels(name, labels):
            both = {f"by {name}": labels != IGNORED, f"by {name} after a shift": labels[..., 1:] != IGNORED}
            if labels.ndim == 1:
                both.popitem()
            counts |= dict(reversed(both.items())) if shifting else both
    counts[EXAMPLES] = torch.ones(batch.examples, 1)
    mask = tensors.get("attention_mask")
    if mask is not None and mask.ndim == 2:
        counts |= {"by attention_mask": mask != 0, "by attention_mask after a shift": mask[:, 1:] != 0}
    listed = {
        name: value.flatten(1).sum(1).tolist() if value.ndim > 1 else value.tolist() for name, value in counts.items()
    }
    return {name: [float(number) for number in numbers] for name, numbers in listed.items()} | {SUM: None}


def _holds_labels(name: str, values: Tensor) -> bool:
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        return False
    return "label" in name or "target" in name or bool((values == IGNORED).any())


def _shares(counts: list[float] | None, groups: list[list[int]], parts: list[list[int]]) -> list[float]:
    """Weights of groups by what counts in them; where nothing counts at all, by their examples."""
    if counts is None:
        return [1.0] * len(groups)
    sums = [sum(counts[number] for number in group) for group in groups]
    if not sum(sums) > 0:
        sums = [float(len(part)) for part in parts]
    return [value / sum(sums) for value in sums]


def _summed(shares: list[float], losses: list[float]) -> float:
    """Losses times their weights; what has no weight is left out, as its loss may be 0 / 0."""
    return sum(share * loss for share, loss in zip(shares, losses, strict=True) if share)


def _groups(batch: Batch, table: Mapping[str, list[float] | None], most: int) -> list[list[int]]:
    """Two examples on which the weightings differ most, and others that go with them."""
    counts = [numbers for numbers in table.values() if numbers is not None]
    first, second = _different_labels(batch)
    if counts:
        ends = {first, second}
        for numbers in counts:
            some = [number for number in range(batch.examples) if numbers[number]] or [0]
            ends |= {max(some, key=numbers.__getitem__), min(some, key=numbers.__getitem__)}
            for other in counts:
                ratios = {number: other[number] / numbers[number] for number in some}
                ends |= (
                    {max(some, key=ratios.__getitem__), min(some, key=ratios.__getitem__)} if len(ratios) > 1 else set()
                )
        found = [(_spread(counts, one, two), one, two) for one in sorted(ends) for two in sorted(ends) if one < two]
        spread, one, two = max(found, key=lambda entry: entry[0], default=(0.0, first, second))
        first, second = (one, two) if spread > 1e-12 else (first, second)
    others = [number for number in range(batch.examples) if number not in (first, second)][: most - 2]
    return [[first], [second], others] if others else [[first], [second]]


def _spread(counts: list[list[float]], one: int, two: int) -> float:
    """Measure how far apart the weights are that the weightings give to one of two examples."""
    shares = [numbers[one] / total for numbers in counts if (total := numbers[one] + numbers[two]) > 0]
    return max(shares, default=0.0) - min(shares, default=0.0)


def _different_labels(batch: Batch) -> tuple[int, int]:
    """Two examples, of different labels where there is one label per example: classes may have weights."""
    for name, labels in batch.tensors():
        if labels.ndim == 1 and _holds_labels(name, labels):
            different = (labels != labels[0]).nonzero()
            if len(different):
                return 0, int(different[0])
    return 0, 1


def _close(one: list[float], other: list[float]) -> bool:
    return all(abs(mine - its) <= 1e-12 for mine, its in zip(one, other, strict=True))


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Without gradients, dropout, or a trace in any generator of random numbers."""
    modes = {module: module.training for module in model.modules()}
    cuda = sorted({parameter.device.index for parameter in model.parameters() if parameter.is_cuda})
    drawn = random.getstate()
    numpy: Any = sys.modules.get("numpy")  # no dependency of ours; a model may draw from it
    numbers = None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng(cuda), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        random.setstate(drawn)
        if numpy is not None:
            numpy.random.set_state(numbers)
