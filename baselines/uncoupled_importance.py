"""Matrices ranked and scored alone, cut aligned: what is lost when a pair is not judged as a pair.

Source: the paper's claim that the two matrices of a pair must be estimated together (coupled estimation), turned round.
Equations: I(W) = mean (dL/dW)^2 of one matrix; the K least important matrices are selected; a selected matrix keeps the
indices of its own largest norms ||W[:, j]||, and its partner loses the same indices.
Faithful: the estimator, theta, width rounding, aligned physical removal and the size curve are those of `ecospa`.
Simplified: K counts pairs, each ranked by the less important of its matrices; that is the order of the matrices
themselves, and a pair of which both are selected is cut once. Gate and up of a gated feed-forward network are one side:
either selects the pair, their stacked norms choose the indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from baselines.curve import Event, SizeCurve
from baselines.method import Budget, TrainingMethod
from ecospa import CoupledEstimator, CoupledPair
from ecospa.sparsifier import side_norms


class UncoupledImportance(TrainingMethod):
    """A matrix is selected by its own gradients and cut by its own norms; its partner follows."""

    name: ClassVar[str] = "uncoupled_importance"
    title = "uncoupled importance"
    removes = "structures"
    group = "selection ablation"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, self._rank, estimator=CoupledEstimator, scorer=self._scores))
        self._sides: dict[str, str] = {}

    def _rank(self, event: Event) -> dict[str, float]:
        assert event.estimator is not None  # this curve estimates
        least: dict[str, tuple[float, str]] = {}
        for (pair, side, _), value in event.estimator.matrix_importances().items():
            if pair not in least or value < least[pair][0]:
                least[pair] = (value, side)
        self._sides = {name: side for name, (_, side) in least.items()}
        return {name: value for name, (value, _) in least.items()}

    def _scores(self, model: nn.Module, pairs: Sequence[CoupledPair]) -> dict[str, Tensor]:
        return {pair.name: side_norms(model, pair, self._sides[pair.name]) for pair in pairs}
