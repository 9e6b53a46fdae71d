"""Training below a number of bytes from the first step on: how many examples go through the model at once.

A model that shrinks while it trains starts dense, so its peak is the dense one's. What can be smaller from the start is
the pass: the examples of an optimizer step go through in parts, whose gradients add up to those of the whole. The parts
grow as the model shrinks. No part of the paper, which reports the peak without saying how it is kept down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.accounting import state_tensors
from ecospa.config import ConfigError
from ecospa.optimizers import all_of
from ecospa.trace import StepTrace, trace_step, weightless

MARGIN = 1.1
"""Traced bytes of a pass are multiplied by this: kernels hold a little more than the operations that they stand for."""


class MemoryBudget:
    """Splits the batch of an optimizer step so that the step stays below a limit.

    peak(m) = weights + optimizer state + max(gradients + 1.1 * pass over m examples, gradients + work of the update)

    and, where all examples go in one pass, 1.1 * (activations and gradients together, which come while the others go)
    in place of the first.

    Args:
        limit: bytes that the step may hold at once, of the tensors of model, optimizer and pass.
        model: what is trained; asked again whenever it has become smaller.
        optimizer: its optimizer, or a list of those that share its parameters.
        mixed: the passes run in bf16 under autocast.

    Raises:
        ConfigError: the limit is not a positive number.

    Attributes:
        micro_batch: examples in one pass at the present size; None before the first batch.
    """

    def __init__(self, limit: int, model: nn.Module, optimizer: Any, mixed: bool = False) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigError(f"memory_budget is {limit!r}; it must be a whole number of bytes, at least 1")
        self.limit, self.model, self.optimizer, self.mixed = limit, model, optimizer, mixed
        self.micro_batch: int | None = None
        self._known: tuple[int, tuple[int, ...]] | None = None

    def split(self, batch: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], float]]:
        """Parts of a batch in its own order, each with its share of the examples.

        The gradient of the sum of share * mean loss of a part is that of the mean loss of the batch, where every
        example has as many labels that count; with padding they differ, as in any accumulation by examples.

        Args:
            batch: what `model(**batch)` takes, examples first in every tensor.

        Raises:
            ConfigError: not even one example fits.
        """
        examples = len(next(iter(batch.values())))
        self._choose(batch, examples)
        assert self.micro_batch is not None
        for start in range(0, examples, self.micro_batch):
            part = {name: value[start : start + self.micro_batch] for name, value in batch.items()}
            yield part, len(next(iter(part.values()))) / examples

    def peak(self, batch: Mapping[str, Tensor], examples: int, margin: float = MARGIN) -> int:
        """Bytes that a step is foretold to hold at once when so many examples go through together.

        Args:
            batch: of a whole step.
            examples: of one pass.
            margin: factor on the traced bytes; 1 for what is expected rather than what is safe.
        """
        trace, gradients = self._trace(batch, examples), self._trained()
        once = examples >= len(next(iter(batch.values())))
        passing = trace.first_transient if once else gradients + trace.transient
        return self._fixed() + max(round(margin * passing), gradients + self._update())

    def _choose(self, batch: Mapping[str, Tensor], examples: int) -> None:
        """Take the most examples that fit; nothing is traced again while model and batch keep their shapes."""
        shapes = (sum(p.numel() for p in self.model.parameters()), tuple(next(iter(batch.values())).shape))
        if shapes == self._known:
            return
        least, most = 1, examples - 1  # the bytes of a pass that is one of several never fall with its examples
        if self.peak(batch, examples) <= self.limit:
            least = most = examples
        elif (needed := self.peak(batch, 1)) > self.limit:
            raise ConfigError(
                f"memory_budget is {self.limit} bytes; this model needs {needed} with one example in a pass: raise it, "
                "shorten the examples, or take a smaller model or optimizer"
            )
        while least < most:
            middle = (least + most + 1) // 2
            least, most = (middle, most) if self.peak(batch, middle) <= self.limit else (least, middle - 1)
        self.micro_batch, self._known = least, shapes

    def _fixed(self) -> int:
        """Weights, buffers and optimizer state; state that is still to come is counted too."""
        weights = sum(_bytes(tensor) for tensor in (*self.model.parameters(), *self.model.buffers()))
        return weights + max(self._state(), self._state_to_come())

    def _trained(self) -> int:
        return sum(_bytes(parameter) for parameter in self.model.parameters() if parameter.requires_grad)

    def _state(self) -> int:
        values = (value for one in all_of(self.optimizer) for state in one.state.values() for value in state.values())
        return sum(_bytes(value) for value in values if isinstance(value, Tensor))

    def _state_to_come(self) -> int:
        """What the optimizers will hold after their first step."""
        return sum(_moments(one) * sum(map(_bytes, _held(one))) for one in all_of(self.optimizer))

    def _update(self) -> int:
        """Work space of the optimizers: one copy of what trains where all tensors go together, else of the largest."""
        return max((_work_space(one) for one in all_of(self.optimizer)), default=0)

    def _trace(self, batch: Mapping[str, Tensor], examples: int) -> StepTrace:
        empty = {
            name: torch.empty((examples, *value.shape[1:]), dtype=value.dtype, device="meta")
            for name, value in batch.items()
        }
        copied = weightless(self.model)
        if self.mixed:
            copied = copied.to(torch.bfloat16)
            empty = {name: value.bfloat16() if value.is_floating_point() else value for name, value in empty.items()}
        return trace_step(copied, empty)


def _held(optimizer: Any) -> list[Tensor]:
    return [one for group in optimizer.param_groups for one in group["params"] if one.requires_grad]


def _moments(optimizer: Any) -> int:
    """Tensors of state for each that trains, by the optimizer's kind; two for one that is not known."""
    kind, options = type(optimizer).__name__.lower(), optimizer.param_groups[0]
    if kind.startswith("sgd"):
        return state_tensors("sgd_momentum" if options.get("momentum") else "sgd")
    return state_tensors("amsgrad" if options.get("amsgrad") else "adamw")


def _work_space(optimizer: Any) -> int:
    held, options = _held(optimizer), optimizer.param_groups[0]
    if options.get("fused"):
        return 0
    cuda = any(parameter.is_cuda for parameter in held)
    together = options.get("foreach") or (options.get("foreach") is None and cuda)
    sizes = [_bytes(parameter) for parameter in held]
    return sum(sizes) if together else 2 * max(sizes, default=0)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
