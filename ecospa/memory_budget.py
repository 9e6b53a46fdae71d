"""Training below a number of bytes from the first step on: how many examples go through the model at once.

A model that shrinks while it trains starts dense, so its peak is the dense one's. What can be smaller from the start is
the pass: the examples of an optimizer step go through in parts, whose gradients add up to those of the whole. The parts
grow as the model shrinks. No part of the paper, which reports the peak without saying how it is kept down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ecospa.accounting import state_tensors
from ecospa.batch_parts import Batch
from ecospa.config import ConfigError
from ecospa.loss_weights import Counts, LossOf, LossWeights
from ecospa.optimizers import all_of
from ecospa.trace import StepTrace, output_loss, trace_step, weightless
from ecospa.wrappers import unwrapped

MARGIN = 1.1
"""Traced bytes of a pass are multiplied by this: kernels hold a little more than the operations that they stand for."""


class MemoryBudget:
    """Splits the batch of an optimizer step so that the step stays below a limit.

    peak(m) = weights + optimizer state + max(gradients + 1.1 * pass over m examples, gradients + work of the update)

    and, where all examples go in one pass, 1.1 * (activations and gradients together, which come while the others go)
    in place of the first.

    Args:
        limit: bytes that the step may hold at once, of the tensors of model, optimizer and pass.
        model: what is trained, compiled or not; asked again whenever it has become smaller.
        optimizer: its optimizer, or a list of several.
        mixed: the passes run in bf16 under autocast.
        micro_batch: examples in one pass, for a model that cannot be traced; then the limit is not looked at.
        counted: says how many labels of a part count, or names the entry that holds them, where -100 does not count;
            None finds it out from the model.
        shared: names of further batch entries that are the same for all examples.
        loss: the loss of a model for a batch or part, where it is not what `model(**part)` returns as its loss.

    Raises:
        ConfigError: the limit, or micro_batch, is not a positive whole number.

    Attributes:
        micro_batch: examples in one pass at the present size; None before the first batch.
    """

    def __init__(
        self,
        limit: int,
        model: nn.Module,
        optimizer: Any,
        mixed: bool = False,
        *,
        micro_batch: int | None = None,
        counted: Counts | str | None = None,
        shared: Collection[str] = (),
        loss: LossOf | None = None,
    ) -> None:
        check_limit(limit)
        if micro_batch is not None and not _positive(micro_batch):
            raise ConfigError(f"micro_batch is {micro_batch!r}; it must be a whole number of examples, at least 1")
        self.limit, self.model, self.optimizer, self.mixed = limit, model, optimizer, mixed
        self.micro_batch, self._fixed_by_hand = micro_batch, micro_batch is not None
        self.shared = tuple(shared)
        self._plain = unwrapped(model)
        self._counted = counted
        self._known: dict[Any, int] = {}
        self._known_size = 0
        self.follow(output_loss if loss is None else loss)

    def follow(self, loss: LossOf) -> None:
        """Take another function for the loss of a part; what was found out about the former is forgotten.

        Args:
            loss: called with a model and a batch.
        """
        self.loss = loss
        self._weights = LossWeights(self._plain, loss, self.mixed, self._counted)

    def split(self, batch: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], float]]:
        """Parts of a batch in its own order, each with the weight that makes their losses that of the batch.

        The gradients of the sum of share * loss of a part are those of the loss of the batch, up to rounding. A loss
        that is a mean is weighed by the labels that count (-100 does not; after the shift of a language model), or by
        examples where labels do not come into it; a sum is left as it is. Which it is the model tells: at the first
        batch of several parts, and again when the answer makes a difference for the first time, it is given a few
        examples together and in parts, without gradients and in evaluation mode. Parts in which no label counts are
        left out, unless none counts in the whole batch.

        Args:
            batch: what `model(**batch)` takes, examples first; entries of one row, and what is no tensor or list of
                that length, go with every part.

        Raises:
            ConfigError: not even one example fits; the batch cannot be taken apart; the model cannot be traced; no
                weights make the losses of parts that of the batch.
        """
        whole = self._batch(batch)
        micro_batch = self._choose(whole)
        if micro_batch >= whole.examples:
            yield dict(batch), 1.0
            return
        starts = range(0, whole.examples, micro_batch)
        parts = [list(range(start, min(start + micro_batch, whole.examples))) for start in starts]
        for part, share in zip(parts, self._weights.shares(whole, parts, micro_batch), strict=True):
            if share:
                yield whole.rows(slice(part[0], part[-1] + 1)), share

    def peak(self, batch: Mapping[str, Any], examples: int, margin: float = MARGIN) -> int:
        """Bytes that a step is predicted to hold at once when so many examples go through together.

        Args:
            batch: of a whole step.
            examples: of one pass.
            margin: factor on the traced bytes; 1 for what is expected rather than what is safe.
        """
        return self._peak(self._batch(batch), examples, margin)

    def _peak(self, batch: Batch, examples: int, margin: float = MARGIN) -> int:
        trace, gradients = self._trace(batch, min(examples, batch.examples)), self._trained()
        passing = trace.first_transient if examples >= batch.examples else gradients + trace.transient
        return self._fixed() + max(round(margin * passing), gradients + self._update())

    def _batch(self, batch: Mapping[str, Any]) -> Batch:
        return Batch(batch, getattr(self._plain, "main_input_name", None), self.shared)

    def _choose(self, batch: Batch) -> int:
        """The most examples that fit; nothing is traced again for shapes that were met at the model's present size."""
        if self._fixed_by_hand:
            assert self.micro_batch is not None
            return self.micro_batch
        size, shapes = sum(p.numel() for p in self._plain.parameters()), batch.shapes()
        if size != self._known_size:
            self._known_size, self._known = size, {}
        if shapes not in self._known:
            self._known[shapes] = self._most(batch)
        self.micro_batch = self._known[shapes]
        return self.micro_batch

    def _most(self, batch: Batch) -> int:
        if self._peak(batch, batch.examples) <= self.limit:
            return batch.examples
        if (needed := self._peak(batch, 1)) > self.limit:
            raise ConfigError(
                f"memory_budget is {self.limit} bytes; this model needs {needed} with one example in a pass: raise it, "
                "shorten the examples, or take a smaller model or optimizer"
            )
        least, most = 1, batch.examples - 1  # the bytes of a pass that is one of several never fall with its examples
        while least < most:
            middle = (least + most + 1) // 2
            least, most = (middle, most) if self._peak(batch, middle) <= self.limit else (least, middle - 1)
        return least

    def _fixed(self) -> int:
        """Weights, buffers and optimizer state; state that is still to come is counted too."""
        weights = sum(_bytes(tensor) for tensor in (*self._plain.parameters(), *self._plain.buffers()))
        return weights + sum(max(_state(one), _state_to_come(one)) for one in all_of(self.optimizer))

    def _trained(self) -> int:
        return sum(_bytes(parameter) for parameter in self._plain.parameters() if parameter.requires_grad)

    def _update(self) -> int:
        """Work space of the optimizers, of which one works at a time."""
        return max((_work(one) for one in all_of(self.optimizer)), default=0)

    def _trace(self, batch: Batch, examples: int) -> StepTrace:
        try:
            copied = weightless(self._plain)
            if self.mixed:
                copied = copied.to(torch.bfloat16)
            return trace_step(copied, batch.stand_in(examples, torch.bfloat16 if self.mixed else None), self.loss)
        except ConfigError:
            raise
        except Exception as error:  # whatever a model of the user's own does with tensors that have no values
            raise ConfigError(
                f"{type(self._plain).__name__} cannot be traced without its weights ({type(error).__name__}: {error}), "
                "so what fits into memory_budget is not known; give the examples per pass by hand, "
                "MemoryBudget(..., micro_batch=4), also as EcoSpaTrainer(memory_budget=lambda model, optimizer: ...)"
            ) from error


def check_limit(limit: Any) -> None:
    """Refuse what is no number of bytes.

    Raises:
        ConfigError: names the value.
    """
    if not _positive(limit):
        raise ConfigError(f"memory_budget is {limit!r}; it must be a whole number of bytes, at least 1")


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _state(optimizer: Any) -> int:
    """Bytes of the state that an optimizer holds."""
    return sum(_bytes(leaf) for leaf in tree_leaves(list(optimizer.state.values())) if isinstance(leaf, Tensor))


def _state_to_come(optimizer: Any) -> int:
    """Bytes an optimizer will hold after its first step, by its kind; two moments for one that is not known."""
    kind, total = type(optimizer).__name__.lower(), 0
    for group in optimizer.param_groups:
        moments = state_tensors("amsgrad" if group.get("amsgrad") else "adamw")
        if kind.startswith(("sgd", "muon")):
            moments = state_tensors("sgd_momentum" if group.get("momentum") else "sgd")
        total += moments * sum(_bytes(parameter) for parameter in group["params"] if parameter.requires_grad)
    return total


def _work(optimizer: Any) -> int:
    """Work space of an update: one copy of what trains where all tensors go together, else of the largest."""
    options = optimizer.param_groups[0]
    if options.get("fused"):
        return 0
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    cuda = any(parameter.is_cuda for parameter in trained)
    together = options.get("foreach") or (options.get("foreach") is None and cuda)
    sizes = [_bytes(parameter) for parameter in trained]
    return sum(sizes) if together else 2 * max(sizes, default=0)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
