"""Importances that are wrong on purpose, to see that it is noticed: estimators for ecospa.CoupledSparsity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

import ecospa
from ecospa.estimator import EstimatorMaker


class ReversedImportance(ecospa.CoupledEstimator):
    """Fisher information with its sign turned: the most important pairs are cut first."""

    def importances(self) -> dict[str, float]:
        """The importances, negative."""
        return {name: -value for name, value in super().importances().items()}


class FirstBlockImportance(ecospa.CoupledEstimator):
    """The pairs of the first block are always the least important ones, whatever the gradients are."""

    def importances(self) -> dict[str, float]:
        """One in the first block, two elsewhere."""
        return {pair.name: 1.0 + (pair.block != self._pairs[0].block) for pair in self._pairs}


BROKEN: Mapping[str, Callable[[nn.Module, Sequence[ecospa.CoupledPair]], ecospa.ImportanceEstimator]] = {
    "reversed": ReversedImportance,
    "first_block": FirstBlockImportance,
}
"""By the names that settings give."""


def broken_importance(name: str | None) -> EstimatorMaker | None:
    """The estimator of that name; None is EcoSpa's own.

    Raises:
        KeyError: no such name.
    """
    return None if name is None else BROKEN[name]
