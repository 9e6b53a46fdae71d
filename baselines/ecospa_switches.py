"""EcoSpa with one open choice of the method made differently, everything else as in `ecospa`.

Source: EcoSpa (arXiv 2511.11641) leaves these choices open, or makes one that can be doubted; none of the other values
is the paper's. They are fields of `ecospa.EcoSpaConfig`, which states the equations.
Equations:
    ecospa_weight_norm      I(W) = mean_ij (dL/dW_ij)^2 * mean_ij W_ij^2, which does not depend on the scale of W
    ecospa_first_order      I(W) = mean over steps of mean_ij |W_ij dL/dW_ij|
    ecospa_by_kind          I(pair) / mean of I over all pairs of its kind (QK, VO, FFN)
    ecospa_k_within_kind    K takes ceil(K n_kind) pairs of every kind
    ecospa_min_share        no pair is cut below 15 % of its dense width
    ecospa_units            all indices of all pairs together, least effect on the loss per parameter first; no K, theta
Faithful: schedule, size curve, aligned physical removal with optimizer state, and every choice that is not named.
Changed: the one that is. `importance_taylor` is `ecospa_first_order` under the name that the ablation of metrics gives.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from baselines.curve import PacedSparsity
from baselines.method import Budget, TrainingMethod


class EcoSpaWeightNorm(TrainingMethod):
    """Fisher information of a matrix times its mean squared weight ranks pairs."""

    name: ClassVar[str] = "ecospa_weight_norm"
    title = "EcoSpa, Fisher by weight norm"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, _with(budget, importance_scale="weight_norm"))


class EcoSpaFirstOrder(TrainingMethod):
    """The mean absolute product of weight and gradient ranks pairs."""

    name: ClassVar[str] = "ecospa_first_order"
    title = "EcoSpa, first order"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, _with(budget, importance_scale="first_order"))


class EcoSpaByKind(TrainingMethod):
    """Fisher information over the mean of its kind ranks pairs."""

    name: ClassVar[str] = "ecospa_by_kind"
    title = "EcoSpa, Fisher by kind"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, _with(budget, importance_scale="kind"))


class EcoSpaKWithinKind(TrainingMethod):
    """An event cuts the share K of the pairs of every kind."""

    name: ClassVar[str] = "ecospa_k_within_kind"
    title = "EcoSpa, K within kind"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, _with(budget, select_within="kind"))


class EcoSpaMinShare(TrainingMethod):
    """No pair is cut below 15 % of its dense width."""

    name: ClassVar[str] = "ecospa_min_share"
    title = "EcoSpa, widths >= 15 %"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, _with(budget, min_share=0.15))


class EcoSpaUnits(TrainingMethod):
    """All indices of all pairs are ranked together, by their effect on the loss for each parameter."""

    name: ClassVar[str] = "ecospa_units"
    title = "EcoSpa, units ranked"
    removes = "structures"
    group = "EcoSpa"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, _with(budget, ranking="units"))


def _with(budget: Budget, **choice: Any) -> PacedSparsity:
    """The budget's curve with one field of the configuration changed."""
    return PacedSparsity(replace(budget.config("curve"), **choice))
