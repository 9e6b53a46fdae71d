"""Random indices: ecospa's pairs lose random indices, aligned, on the same curve.

Source: the random control of the pruning literature (Gale et al., arXiv 1902.09574), applied to the choice of indices
alone.
Equations: importance of a pair as in `ecospa`; kept indices: a uniform random subset, drawn anew at every event.
Faithful: estimator, K, steps, sizes, width rounding, aligned physical removal and optimizer state are those of
`ecospa`, so only the index scores differ: what choosing indices by norm product is worth.
Simplified: random scores are nearly equal, so that theta keeps its own share of the width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.curve import SizeCurve
from baselines.method import Budget, TrainingMethod, TrainingState
from baselines.random_pairs import nearly_equal
from ecospa import CoupledPair


class RandomIndices(TrainingMethod):
    """The least important pairs lose random indices."""

    name: ClassVar[str] = "random_indices"
    title = "random indices"
    removes = "structures"
    group = "selection ablation"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, scorer=self._draw))
        self._step = 0

    def after_step(self, state: TrainingState) -> None:
        """Cut, when an event is due, by what seed and step draw."""
        self._step = state.step
        super().after_step(state)

    def _draw(self, model: nn.Module, pairs: Sequence[CoupledPair]) -> Mapping[str, Tensor]:
        generator = torch.Generator(device="cpu").manual_seed(self.budget.seed * 1_000_003 + self._step)
        return {pair.name: nearly_equal(pair, generator) for pair in pairs}
