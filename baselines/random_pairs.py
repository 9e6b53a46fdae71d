"""Random pairs and random indices, cut aligned on the same curve: the floor that a selection rule must beat.

Source: the usual control of the pruning literature (Gale et al., arXiv 1902.09574); the paper's summary names none.
Equations: importance of a pair ~ U(0, 1), drawn anew at every event; kept indices: a uniform random subset.
Faithful: steps, sizes, width rounding, aligned physical removal and optimizer state are those of `ecospa`, so only the
choice differs. Simplified: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.curve import Event, SizeCurve
from baselines.method import Budget, TrainingMethod
from ecospa import CoupledPair, coupled_pairs

_SPREAD = 1e-3


class RandomPairs(TrainingMethod):
    """Random pairs lose random indices."""

    name: ClassVar[str] = "random_pairs"
    title = "random, aligned"
    removes = "structures"
    group = "selection ablation"
    reads_gradients: ClassVar[bool] = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, self._draw, scorer=self._drawn))
        self._scores: dict[str, Tensor] = {}

    def _draw(self, event: Event) -> dict[str, float]:
        # seed and step alone decide, so that a resumed run draws what an uninterrupted one does
        generator = torch.Generator(device="cpu").manual_seed(self.budget.seed * 1_000_003 + event.state.step)
        importances = {}
        for pair in coupled_pairs(event.state.model):
            importances[pair.name] = float(torch.rand((), generator=generator, dtype=torch.float64))
            self._scores[pair.name] = nearly_equal(pair, generator)
        return importances

    def _drawn(self, model: nn.Module, pairs: Sequence[CoupledPair]) -> Mapping[str, Tensor]:
        return self._scores


def nearly_equal(pair: CoupledPair, generator: torch.Generator) -> Tensor:
    """Random index scores of a pair, nearly equal: theta keeps its own share of the width, as of untrained weights.

    Args:
        pair: the pair as it is now.
        generator: on the CPU.

    Returns:
        float64 (groups, units), in [1, 1 + a thousandth].
    """
    noise = torch.rand(pair.groups, pair.units, generator=generator, dtype=torch.float64)
    return 1 + _SPREAD * noise
