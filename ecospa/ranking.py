"""From the gradients of a window to importances that rank the pairs, where they do (paper, coupled estimation)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ecospa.estimator import CoupledEstimator, ImportanceEstimator, tied_at_zero
from ecospa.selection import select_pairs
from ecospa.unit_effects import UnitEffects


@dataclass(frozen=True)
class Ranking:
    """Ranking of the pairs by the gradients since the last event.

    Attributes:
        importances: importance of every pair; empty where they cannot be ranked.
        problem: why they cannot be ranked; empty where they can.
        doubt: what is odd about the ranking all the same; empty where nothing is.
    """

    importances: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    doubt: str = ""


def ranking(estimator: ImportanceEstimator, names: Sequence[str], top_k: float) -> Ranking:
    """Importance of every pair that may be cut, where the estimator tells the pairs apart.

    Args:
        estimator: holds what was measured since the last event; zeros are looked into where they are gradients'.
        names: of the pairs that may be cut; one that has begun to train since then is not measured yet, and goes last.
        top_k: share of the pairs that the event may cut.
    """
    if estimator.steps == 0:
        # loss scaling may have skipped every step of a short window; that must not end a long run
        return Ranking(
            problem="no gradient was seen since the last event, so nothing was cut; "
            "call after_backward() before every after_step(), unless loss scaling skipped the steps"
        )
    measured = estimator.importances()
    if broken := [name for name in names if not math.isfinite(measured.get(name, 0.0))]:
        return Ranking(
            problem=f"the gradients of {broken[0]} since the last event are NaN or infinite; "
            "nothing was cut, the next event will use new gradients"
        )
    most = max((value for value in measured.values() if math.isfinite(value)), default=1.0)
    importances = {name: measured.get(name, most) for name in names}
    if not isinstance(estimator, CoupledEstimator | UnitEffects):  # zero may be a rank, a share or a distance
        return Ranking(importances)
    zero = tied_at_zero(importances, len(select_pairs(importances, top_k)))
    if zero and len(zero) == len(importances):
        return Ranking(
            problem="every gradient since the last event is exactly zero, which ranks no pair; nothing was cut. Does "
            "the loss depend on the model (labels all ignored, a detached output)?"
        )
    if not zero or isinstance(estimator, UnitEffects):  # a pair without effect may go, whatever its place
        return Ranking(importances)
    return Ranking(
        importances,
        doubt=f"{len(zero)} pairs have gradients of exactly zero, {zero[0]} among them; those that an event cuts are "
        "the first in the order of the model, not the least important",
    )
