"""Methods on one size-over-steps curve: events at the same steps, down to the same sizes, whatever is cut.

Who stays large for longer learns more, so methods that shrink during training are only comparable on one curve. Those
that cut pairs hand `ecospa.CoupledSparsity` their importance and their scores (`SizeCurve`) and have no loop of their
own. Two kinds cannot: masked entries leave the model its shapes, which CoupledSparsity cuts (baselines.masked_curve),
and whole heads are no pairs (baselines.movement). They share steps, goals and the model (`BudgetCurve`).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from baselines.method import Budget, HistoryEntry, TrainingState, size_entry
from ecospa import (
    CoupledEstimator,
    CoupledPair,
    CoupledSparsifier,
    CoupledSparsity,
    EcoSpaConfig,
)
from ecospa.estimator import EstimatorMaker
from ecospa.schedule import Schedule
from ecospa.sparsifier import Scorer

_OTHER_MODEL = "the model is not the one that prepare() saw; give every hook the same, unwrapped model"


class PacedSparsity:
    """`CoupledSparsity`, made at the first hook, where the optimizer is known (a `baselines.method.Shrinker`).

    Args:
        config: the method's configuration.
        estimator: importance of pairs, made from model and pairs; None is that of ecospa.
        scorer: index scores inside a pair; None takes those of ecospa.
    """

    def __init__(
        self, config: EcoSpaConfig, *, estimator: EstimatorMaker | None = None, scorer: Scorer | None = None
    ) -> None:
        self.config = config
        self.history: list[HistoryEntry] = []
        self._estimator, self._scorer = estimator, scorer
        self._sparsity: CoupledSparsity | None = None
        self._saved: Mapping[str, Any] | None = None

    def start(self, model: nn.Module) -> None:
        """Begin with a dense model; an unreachable target is refused here, before any step."""
        CoupledSparsifier(model, self.config)
        self._sparsity = self._saved = None
        self.history[:] = [size_entry(0, model)]

    def attach(self, model: nn.Module) -> None:
        """Nothing yet: the optimizer is needed too, and the first hook brings both."""

    def after_backward(self, state: TrainingState) -> None:
        """Add the gradients of this step to the importance estimate."""
        self._bound(state).after_backward()

    def after_step(self, state: TrainingState) -> None:
        """Cut, when an event is due."""
        sparsity = self._bound(state)
        sparsity.after_step()
        self._copy_history(sparsity)

    def finish(self, state: TrainingState) -> None:
        """Let go of the optimizer, whose state is as large as two models: the model is an ordinary dense one."""
        self._sparsity, self._saved = None, self.state_dict()

    def removed(self, model: nn.Module) -> int:
        """Nothing is masked."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return dict(self._saved or {}) if self._sparsity is None else self._sparsity.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the smaller model that the next hook brings."""
        self._sparsity, self._saved = None, state
        self.history[:] = [dict(entry) for entry in state["history"]]

    def _bound(self, state: TrainingState) -> CoupledSparsity:
        if self._sparsity is None:
            self._sparsity = CoupledSparsity(
                state.model, state.optimizer, self.config, resume=self._saved,
                estimator=self._estimator, scorer=self._scorer,
            )  # fmt: skip
        return self._sparsity

    def _copy_history(self, sparsity: CoupledSparsity) -> None:
        for event in sparsity.history[len(self.history) :]:
            self.history.append({**asdict(event), "widths": dict(event.widths)})


@dataclass(frozen=True, eq=False)
class Event:
    """One event as a method that ranks pairs sees it.

    Attributes:
        state: model, optimizer and step.
        estimator: gradients since the last event; None for a method that does not ask for them.
    """

    state: TrainingState
    estimator: CoupledEstimator | None


Rank = Callable[[Event], Mapping[str, float]]
"""Importance of every pair at an event."""


class SizeCurve(PacedSparsity):
    """Shrinks along the budget's curve, by a method's own importance of pairs and its own index scores.

    Steps are those of the experiment: a method that reads no gradients may cut where no optimizer has stepped.

    Args:
        budget: target, steps and curve.
        rank: importance of pairs at an event; None takes what the estimator says.
        estimator: measures gradients between events; None for a method that does not ask for them.
        scorer: index scores inside a pair, asked after `rank`; None takes those of ecospa.

    Raises:
        ConfigError: the budget has no target.
    """

    def __init__(
        self,
        budget: Budget,
        rank: Rank | None = None,
        *,
        estimator: type[CoupledEstimator] | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        maker: EstimatorMaker | None = self._made if rank else estimator
        super().__init__(budget.config(), estimator=maker, scorer=scorer)
        self._rank, self._measured_by = rank, estimator
        self._model: nn.Module | None = None
        self._state: TrainingState | None = None

    def start(self, model: nn.Module) -> None:
        """Begin with a dense model; an unreachable target is refused here, before any step."""
        super().start(model)
        self._model = model

    def attach(self, model: nn.Module) -> None:
        """Meet the model that will be trained.

        Raises:
            ValueError: it is another model than the one of `start`.
        """
        if self._model is not None and self._model is not model:
            raise ValueError(_OTHER_MODEL)
        self._model = model

    def after_backward(self, state: TrainingState) -> None:
        """Add the gradients of this step to the importance estimate."""
        self._bound(state).after_backward(state.step)

    def after_step(self, state: TrainingState) -> None:
        """Cut, when an event is due."""
        sparsity = self._bound(state)
        sparsity.after_step(state.step)
        self._copy_history(sparsity)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the smaller model that the next hook brings."""
        super().load_state_dict(state)
        self._model = None

    def _bound(self, state: TrainingState) -> CoupledSparsity:
        self.attach(state.model)
        self._state = state
        return super()._bound(state)

    def _made(self, model: nn.Module, pairs: Sequence[CoupledPair]) -> Ranked:
        return Ranked(self._importances, None if self._measured_by is None else self._measured_by(model, pairs))

    def _importances(self, measured: CoupledEstimator | None) -> Mapping[str, float]:
        assert self._rank is not None and self._state is not None  # asked at an event, by `Ranked` alone
        return self._rank(Event(self._state, measured))


class Ranked:
    """Importances that are made at an event, from gradients or without any (an `ecospa.ImportanceEstimator`).

    Args:
        rank: makes them from what was measured.
        measured: measures gradients between events; None where they are not needed.
    """

    def __init__(
        self, rank: Callable[[CoupledEstimator | None], Mapping[str, float]], measured: CoupledEstimator | None
    ) -> None:
        self._rank, self._measured = rank, measured

    @property
    def steps(self) -> int:
        """Steps measured since the last event; without gradients an event can always rank."""
        return 1 if self._measured is None else self._measured.steps

    def update(self) -> None:
        """Measure a step."""
        if self._measured is not None:
            self._measured.update()

    def importances(self) -> Mapping[str, float]:
        """Importance of every pair by the method; broken gradients rank nothing, whatever it says."""
        if self._measured is not None:
            means = self._measured.importances()
            if not all(math.isfinite(value) for value in means.values()):
                return means
        return self._rank(self._measured)

    def rebind(self, pairs: Sequence[CoupledPair]) -> None:
        """Begin a new window with the pairs of now."""
        if self._measured is not None:
            self._measured.rebind(pairs)

    def mark(self) -> Any:
        """The window as it is now."""
        return None if self._measured is None else self._measured.mark()

    def rewind(self, mark: Any) -> None:
        """Take back what was measured since a mark."""
        if self._measured is not None:
            self._measured.rewind(mark)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state of the window."""
        return {} if self._measured is None else self._measured.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a window."""
        if self._measured is not None:
            self._measured.load_state_dict(state)


class BudgetCurve(ABC):
    """Steps, goals and the model of a method that cuts along the budget's curve in a way of its own.

    Args:
        budget: target, steps and curve.

    Raises:
        ConfigError: the budget has no target.

    Attributes:
        history: the model at the start and after every event that cut.
        finished: the target is reached.
    """

    def __init__(self, budget: Budget) -> None:
        self.config = budget.config()
        self.history: list[HistoryEntry] = []
        self.finished = False
        self._model: nn.Module | None = None
        self._schedule: Schedule

    def attach(self, model: nn.Module) -> None:
        """Meet the model that will be trained: that of `start`, or after a resume that of the checkpoint.

        Raises:
            ValueError: it is another model than the one of `start`, or not the one of the saved state.
        """
        if self._model is None:
            self._meet(model)
        elif self._model is not model:
            raise ValueError(_OTHER_MODEL)

    def due(self, step: int) -> bool:
        """Return True when an event is due after `step` optimizer steps, or was missed at the end of the curve."""
        return not self.finished and (self._schedule.due(step) or self._schedule.must_land(step))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; `attach` or the next hook brings the model."""
        self._model = None
        self.history[:] = [dict(entry) for entry in state["history"]]
        self.finished = bool(state["finished"])

    @abstractmethod
    def _meet(self, model: nn.Module) -> None:
        """Begin with a model, or go on with that of a checkpoint."""


def shapes_only(model: nn.Module) -> nn.Module:
    """A copy of a model on the meta device: all its shapes, none of its values."""
    shapes: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()
    }
    shapes.update((id(buffer), torch.empty_like(buffer, device="meta")) for buffer in model.buffers())
    return copy.deepcopy(model, shapes)
