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

from dataclasses import replace
from typing import ClassVar

from baselines.curve import PacedSparsity
from baselines.method import Budget, TrainingMethod


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
        rule = replace(budget.rule, tied=True)
        super().__init__(budget, PacedSparsity(replace(budget.config("curve"), width_multiple=rule)))
