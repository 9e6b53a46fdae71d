"""EcoSpa itself, as one method among the others: the very code that users run, `ecospa.CoupledSparsity`.

Source: EcoSpa (arXiv 2511.11641), coupled estimation and coupled sparsification.
Equations: I(pair) = mean over its matrices of mean (dL/dW)^2; v_j = ||W1[:, j]|| * ||W2[j, :]||; in the K least
important pairs the smallest index set with sum v_j >= theta * total stays.
Faithful: estimate, ranking, index scores, aligned physical removal with optimizer state, theta and K.
Changed: `ecospa` follows the budget's size curve, so that it is compared with the others at the same size at the same
step: K and theta then say where an event cuts, and the curve how much. `ecospa_own_pace` leaves the pace to K, theta
and the interval, as the paper does; it stops at the target, and may end above it when the run has too few events (50 %
takes about 40 of them). `ecospa_spaced` lets K and theta decide how much an event cuts, as the paper does, and spaces
the events so that the target is reached at the budget's end step: small cuts come often, large ones seldom, and runs of
any K and theta end equally small at the same step. It does not look at the budget's interval. `ecospa_tied` cuts the
query/key and the value/output pair of one attention module as one, so that heads stay equally wide, as fused attention
on the CPU and flash attention want them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

from torch import nn

from baselines.method import Budget, HistoryEntry, TrainingMethod, TrainingState, size_entry
from ecospa import CoupledSparsifier, CoupledSparsity, EcoSpaConfig, WidthRule


class EcoSpa(TrainingMethod):
    """Coupled sparsity on the budget's size curve."""

    name: ClassVar[str] = "ecospa"
    title = "EcoSpa"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PacedSparsity(budget.config("curve")))


class EcoSpaOwnPace(TrainingMethod):
    """Coupled sparsity at the pace of K, theta and the interval alone, down to the same target."""

    name: ClassVar[str] = "ecospa_own_pace"
    title = "EcoSpa, own pace"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PacedSparsity(budget.config("paper")))


class EcoSpaSpaced(TrainingMethod):
    """Coupled sparsity in cuts of K and theta, as far apart as it takes to reach the target at the end step."""

    name: ClassVar[str] = "ecospa_spaced"
    title = "EcoSpa, spaced cuts"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        config = replace(budget.config("paper"), interval=None, end_step=budget.end_step)
        super().__init__(budget, PacedSparsity(config))


class EcoSpaTied(TrainingMethod):
    """Coupled sparsity on the budget's size curve, with query/key and value widths that stay equal."""

    name: ClassVar[str] = "ecospa_tied"
    title = "EcoSpa, heads tied"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        multiple = budget.width_multiple
        rule = WidthRule(multiple, multiple, multiple, tied=True)
        super().__init__(budget, PacedSparsity(replace(budget.config("curve"), width_multiple=rule)))


class PacedSparsity:
    """`CoupledSparsity`, made at the first hook, where the optimizer is known (a `baselines.method.Shrinker`)."""

    def __init__(self, config: EcoSpaConfig) -> None:
        self.config = config
        self.history: list[HistoryEntry] = []
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
            self._sparsity = CoupledSparsity(state.model, state.optimizer, self.config, resume=self._saved)
        return self._sparsity

    def _copy_history(self, sparsity: CoupledSparsity) -> None:
        for event in sparsity.history[len(self.history) :]:
            self.history.append({**asdict(event), "widths": dict(event.widths)})
