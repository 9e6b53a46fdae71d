"""MaskedCurve: masking along the budget's size-over-steps curve, for methods whose result is no smaller dense model.

`ecospa.CoupledSparsity` cuts the model that it ranks. Here the model keeps its shapes and a shape-only twin is cut, so
that sizes and widths are the budget's; the event is this module's own, its steps and goals are those of all curves.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from baselines.curve import BudgetCurve, shapes_only
from baselines.masks import Masks
from baselines.method import Budget, HistoryEntry, TrainingState, size_entry
from ecospa import CoupledEstimator, CoupledSparsifier, SkippedEventWarning, SparsityPlan, apply_plan, coupled_pairs
from ecospa.schedule import Schedule
from ecospa.shape import first_units_plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class MaskedEvent:
    """One event as a method that masks sees it.

    Attributes:
        state: model, optimizer and step.
        body: shape-only twin of the model on the meta device, which is really cut: its shapes are the budget's.
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


class MaskedCurve(BudgetCurve):
    """Masks along the budget's curve (a `baselines.method.Shrinker`).

    Args:
        budget: target, steps and curve.
        masks: what is gone; the model keeps its shapes.
        choose: the method's rule. It writes into the masks; where it removes whole units of pairs it returns the plan
            for `event.body` too.
        estimate: gradients are accumulated between events.

    Raises:
        ConfigError: the budget has no target.
    """

    def __init__(
        self,
        budget: Budget,
        masks: Masks,
        choose: Callable[[MaskedEvent], SparsityPlan | None],
        *,
        estimate: bool = False,
    ) -> None:
        super().__init__(budget)
        self.masks = masks
        self._choose, self._estimate = choose, estimate
        self._saved: Mapping[str, Any] | None = None

    def start(self, model: nn.Module) -> None:
        """Begin with a dense model.

        Raises:
            ConfigError: the target cannot be reached with this model.
        """
        self._saved = None
        self._bind(model)
        self.history[:] = [self._entry(model, 0)]
        self.finished = self._landed(model)

    def after_backward(self, state: TrainingState) -> None:
        """Add the gradients of this step to the estimate."""
        self.attach(state.model)
        if self._estimator is not None and not self.finished and state.step >= self.config.start_step:
            self._estimator.update()

    def after_step(self, state: TrainingState) -> None:
        """Keep masked weights at zero, and let an event happen when one is due."""
        self.attach(state.model)
        self.masks.zero_weights(state.model)
        if self.due(state.step):
            self._shrink(state)

    def finish(self, state: TrainingState) -> None:
        """Take the masks' hooks off the model."""
        self.masks.detach()

    def removed(self, model: nn.Module) -> int:
        """Entries that are stored but masked."""
        return self.masks.count

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: history, masks, wanted widths and the window of gradients."""
        if self._model is None:
            return dict(self._saved or {})
        return {
            "history": [dict(entry) for entry in self.history],
            "finished": self.finished,
            "sparsifier": self._sparsifier.state_dict(),
            "estimator": None if self._estimator is None else self._estimator.state_dict(),
            "masks": self.masks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; `attach` or the next hook brings the model, and its masks act from there on."""
        super().load_state_dict(state)
        self._saved = state
        self.masks.load_state_dict(state["masks"])

    def _meet(self, model: nn.Module) -> None:
        if self._saved is None:
            self.start(model)
            return
        # the target is a share of the model as it was before the first event
        self._bind(model, int(self._saved["sparsifier"]["full_size"]))
        self._sparsifier.load_state_dict(self._saved["sparsifier"])
        if self._estimator is not None:
            self._estimator.load_state_dict(self._saved["estimator"])
        apply_plan(self._body, first_units_plan(self._body, self.history[-1]["widths"]))
        self.masks.attach(model)
        if self._widths() != self.history[-1]["widths"]:
            raise ValueError("the model's widths are not those of the saved state; load the model of that checkpoint")

    def _bind(self, model: nn.Module, full_size: int | None = None) -> None:
        self._body = shapes_only(model)
        self._sparsifier = CoupledSparsifier(self._body, self.config, full_size)
        self._estimator = CoupledEstimator(model, coupled_pairs(model)) if self._estimate else None
        self._schedule = Schedule(self.config, self._sparsifier.full_size, self._sparsifier.target_size)
        self._model = model

    def _shrink(self, state: TrainingState) -> None:
        goal = self._schedule.goal(state.step)
        if self._estimator is not None and not _finite(self._estimator, state.step):
            self._estimator.reset()
            return
        model, before = state.model, self.masks.count
        excess = max(0, self._size(model) - goal)
        plan = self._choose(MaskedEvent(state, self._body, goal, excess, self._sparsifier, self._estimator))
        if plan is not None:
            apply_plan(self._body, plan)
        self.masks.zero_weights(model)
        self.masks.zero_state(model, state.optimizer)
        if self._estimator is not None:
            self._estimator.reset()
        if plan is not None or self.masks.count > before:
            self.history.append(self._entry(model, state.step))
        self.finished = self._landed(model)
        if self.finished:
            logger.info("step %d: the target is reached at %d parameters", state.step, self._size(model))

    def _size(self, model: nn.Module) -> int:
        return self._sparsifier.size(model) - self.masks.count

    def _landed(self, model: nn.Module) -> bool:
        return self._size(model) <= self._sparsifier.target_size or self._sparsifier.landed(self._body)

    def _widths(self) -> dict[str, int]:
        return {pair.name: pair.width for pair in coupled_pairs(self._body)}

    def _entry(self, model: nn.Module, step: int) -> HistoryEntry:
        return size_entry(step, model, self.masks.count, self._widths())


def _finite(estimator: CoupledEstimator, step: int) -> bool:
    if all(math.isfinite(value) for value in estimator.importances().values()):
        return True
    message = f"step {step}: gradients since the last event are NaN or infinite; nothing was cut this time"
    warnings.warn(message, SkippedEventWarning, stacklevel=5)
    return False
