"""SizeCurve: events at the same steps, down to the same sizes, for every method that shrinks during training.

Who stays large for longer learns more, so methods are only comparable on one size-over-steps curve. This module owns
the steps, the sizes, the gradients seen since the last event and the history; a method only says what one event cuts.
Its bookkeeping is that of `ecospa.CoupledSparsity`, with the choice left open.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from baselines.masks import Masks
from baselines.method import Budget, HistoryEntry, TrainingState, size_entry
from ecospa import (
    CoupledEstimator,
    CoupledSparsifier,
    SkippedEventWarning,
    SparsityPlan,
    apply_plan,
    coupled_pairs,
)
from ecospa.pairs import unit_positions
from ecospa.schedule import Schedule

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Event:
    """One event as a method sees it.

    Attributes:
        state: model, optimizer and step.
        body: the model whose shapes are the budget's: the model itself, or, where entries are masked, its shape-only
            twin on the meta device, which is really cut.
        goal: parameters in the target scope that the event comes down to, and not below.
        excess: parameters that may go at most: the present size less the goal.
        sparsifier: chooses widths and indices for `body`.
        estimator: gradients of `state.model` since the last event; None for a method that does not ask for them.
    """

    state: TrainingState
    body: nn.Module
    goal: int
    excess: int
    sparsifier: CoupledSparsifier
    estimator: CoupledEstimator | None


class SizeCurve:
    """Shrinks along the budget's curve (a `baselines.method.Shrinker`).

    Args:
        budget: target, steps and curve.
        choose: the method's rule. It returns a plan for `event.body`, or None to cut nothing; a masked method writes
            into its masks as well.
        estimate: whether gradients are accumulated between events.
        masks: given by a method that masks; the model then keeps its shapes.
        estimator: what accumulates them; a subclass measures something else than squares.

    Raises:
        ConfigError: the budget has no target.
    """

    def __init__(
        self,
        budget: Budget,
        choose: Callable[[Event], SparsityPlan | None],
        *,
        estimate: bool = False,
        masks: Masks | None = None,
        estimator: type[CoupledEstimator] = CoupledEstimator,
    ) -> None:
        self.config = budget.config()
        self.history: list[HistoryEntry] = []
        self.finished = False
        self.masks = masks
        self._choose = choose
        self._estimate = estimate
        self._estimator_type = estimator
        self._model: nn.Module | None = None
        self._saved: Mapping[str, Any] | None = None

    def start(self, model: nn.Module) -> None:
        """Begin with a dense model.

        Raises:
            ConfigError: the target cannot be reached with this model.
        """
        self._saved = None
        self._bind(model)
        self.history[:] = [self._entry(0)]
        self.finished = self._landed()

    def attach(self, model: nn.Module) -> None:
        """Meet the model that will be trained; after a resume its masks act from here on.

        Raises:
            ValueError: it is another model than the one of `start`, or not the one of the saved state.
        """
        if self._model is model:
            return
        if self._model is not None:
            raise ValueError("the model is not the one that prepare() saw; give every hook the same, unwrapped model")
        if self._saved is None:
            self.start(model)
        else:
            self._resume(model, self._saved)

    def after_backward(self, state: TrainingState) -> None:
        """Add the gradients of this step to the estimate."""
        self.attach(state.model)
        if self._estimator is not None and not self.finished and state.step >= self.config.start_step:
            self._estimator.update()

    def after_step(self, state: TrainingState) -> None:
        """Keep masked weights at zero, and let an event happen when one is due."""
        self.attach(state.model)
        if self.masks is not None:
            self.masks.zero_weights(state.model)
        end_step = self.config.end_step
        overdue = end_step is not None and state.step >= end_step
        if not self.finished and (overdue or self._schedule.due(state.step)):
            self._shrink(state)

    def finish(self, state: TrainingState) -> None:
        """Take the masks' hooks off the model."""
        if self.masks is not None:
            self.masks.detach()

    def removed(self, model: nn.Module) -> int:
        """Entries that are stored but masked."""
        return 0 if self.masks is None else self.masks.count

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: history, masks, wanted widths and the window of gradients."""
        if self._model is None:
            return dict(self._saved or {})
        return {
            "history": [dict(entry) for entry in self.history],
            "finished": self.finished,
            "sparsifier": self._sparsifier.state_dict(),
            "estimator": None if self._estimator is None else self._estimator.state_dict(),
            "masks": None if self.masks is None else self.masks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; `attach` or the next hook brings the model."""
        self._model, self._saved = None, state
        self.history[:] = [dict(entry) for entry in state["history"]]
        self.finished = bool(state["finished"])
        if self.masks is not None:
            self.masks.load_state_dict(state["masks"])

    def _bind(self, model: nn.Module, full_size: int | None = None) -> None:
        self._body = model if self.masks is None else shapes_only(model)
        self._sparsifier = CoupledSparsifier(self._body, self.config, full_size)
        self._estimator = self._estimator_type(model, coupled_pairs(model)) if self._estimate else None
        self._schedule = Schedule(self.config, self._sparsifier.full_size, self._sparsifier.target_size)
        self._model = model

    def _resume(self, model: nn.Module, saved: Mapping[str, Any]) -> None:
        # the target is a share of the model as it was before the first event
        self._bind(model, int(saved["sparsifier"]["full_size"]))
        self._sparsifier.load_state_dict(saved["sparsifier"])
        if self._estimator is not None:
            self._estimator.load_state_dict(saved["estimator"])
        if self.masks is not None:
            apply_plan(self._body, narrowed(self._body, self.history[-1]["widths"]))
            self.masks.attach(model)
        widths = {pair.name: pair.width for pair in coupled_pairs(self._body)}
        if widths != self.history[-1]["widths"]:
            raise ValueError("the model's widths are not those of the saved state; load the model of that checkpoint")

    def _shrink(self, state: TrainingState) -> None:
        goal = self._schedule.goal(state.step)
        if self._estimator is not None and not self._gradients_are_finite(state.step):
            self._estimator.reset()
            return
        excess = max(0, self._size() - goal)
        before = self.removed(state.model)
        plan = self._choose(Event(state, self._body, goal, excess, self._sparsifier, self._estimator))
        if plan is not None:
            apply_plan(self._body, plan, None if self.masks is not None else state.optimizer)
        if self.masks is not None:
            self.masks.zero_weights(state.model)
            self.masks.zero_state(state.model, state.optimizer)
        if self._estimator is not None:
            self._estimator.rebind(coupled_pairs(state.model))
        if plan is not None or self.removed(state.model) > before:
            self.history.append(self._entry(state.step))
        self.finished = self._landed()
        if self.finished:
            logger.info("step %d: the target is reached at %d parameters", state.step, self._size())

    def _gradients_are_finite(self, step: int) -> bool:
        assert self._estimator is not None  # asked for by methods that estimate only
        if all(math.isfinite(value) for value in self._estimator.importances().values()):
            return True
        message = f"step {step}: gradients since the last event are NaN or infinite; nothing was cut this time"
        warnings.warn(message, SkippedEventWarning, stacklevel=4)
        return False

    def _size(self) -> int:
        assert self._model is not None  # bound by start() or by attach()
        return self._sparsifier.size(self._model) - self.removed(self._model)

    def _landed(self) -> bool:
        return self._size() <= self._sparsifier.target_size or self._sparsifier.landed(self._body)

    def _entry(self, step: int) -> HistoryEntry:
        assert self._model is not None  # bound by start() or by attach()
        widths = {pair.name: pair.width for pair in coupled_pairs(self._body)}
        return size_entry(step, self._model, self.removed(self._model), widths)


def shapes_only(model: nn.Module) -> nn.Module:
    """A copy of a model on the meta device: all its shapes, none of its values."""
    shapes: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()
    }
    shapes.update((id(buffer), torch.empty_like(buffer, device="meta")) for buffer in model.buffers())
    return copy.deepcopy(model, shapes)


def narrowed(model: nn.Module, widths: Mapping[str, int]) -> SparsityPlan:
    """The plan that brings every pair to a width by keeping its first units.

    Args:
        model: a model of which only the shapes matter, such as one that was never trained.
        widths: new width in indices of every pair that shall change.
    """
    kept = {}
    for pair in coupled_pairs(model):
        first = torch.arange(widths.get(pair.name, pair.width) // pair.unit, device="cpu").repeat(pair.groups, 1)
        kept[pair.name] = unit_positions(pair, first)
    return SparsityPlan.build(model, kept)
