"""Uniform pairs: every pair narrowed alike on the same curve, by ecospa's own index scores.

Source: the "uniform pruning ratio" control of structured pruning (Liu et al., arXiv 1810.05270, Section 4); the paper's
summary names none.
Equations: importance of a pair = -(width / dense width), so that an event cuts the pairs that have kept most; inside a
pair v_j = ||W1[:, j]|| * ||W2[j, :]|| as in `ecospa`.
Faithful: steps, sizes, width rounding, aligned physical removal and optimizer state are those of `ecospa`, so only the
choice of pairs differs: what allocation is worth.
Simplified: K and theta still say how many pairs an event cuts and by how much, so widths differ by a cut on the way.
"""

from __future__ import annotations

from typing import ClassVar

from baselines.curve import Event, SizeCurve
from baselines.method import Budget, TrainingMethod
from ecospa import coupled_pairs
from ecospa.dense import dense_shape


class UniformPairs(TrainingMethod):
    """Pairs that have kept the largest share of their width are cut."""

    name: ClassVar[str] = "uniform_pairs"
    title = "uniform pairs"
    removes = "structures"
    group = "selection ablation"
    reads_gradients: ClassVar[bool] = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, _share_cut))


def _share_cut(event: Event) -> dict[str, float]:
    pairs = coupled_pairs(event.state.model)
    dense = dense_shape(event.state.model, pairs)
    return {pair.name: -pair.width / dense[pair.name][1] for pair in pairs}
