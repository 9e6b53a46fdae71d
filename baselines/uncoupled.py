"""Uncoupled removal: each matrix of a pair chooses its own indices, so the two sides no longer match.

Source: the alternative that the paper argues against (coupled sparsification, Appendix A): structured pruning of one
matrix at a time, by its own norms.
Equations: of a pair that is to keep w indices, the left matrix keeps those of the w largest ||W1[:, j]||, the right one
those of the w largest ||W2[j, :]||. An index kept in one and cut in the other carries nothing but still counts.
Faithful: importance of pairs, K, theta, width rounding and the size curve are those of `ecospa`: both hold the same
number of live parameters at every step. Theta takes the widths from ||W1[:, (r)]|| * ||W2[(r), :]|| over ranks r, since
the sides have no index in common any more.
Simplified: the mismatch cannot be cut out of a dense model, so what is removed is masked: exactly zero, without
gradient and optimizer state. The model keeps its shapes, and neither memory nor time is saved; that is a property of
the method.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.masked_curve import MaskedCurve, MaskedEvent
from baselines.masks import Masks
from baselines.method import Budget, TrainingMethod
from ecospa import CoupledPair, SparsityPlan, coupled_pairs
from ecospa.pairs import unit_positions
from ecospa.selection import best_units
from ecospa.sparsifier import side_norms

_SIDES = ("left", "right")


class Uncoupled(TrainingMethod):
    """Both matrices of a pair lose as many indices, each its own."""

    masks: Masks
    name: ClassVar[str] = "uncoupled"
    title = "uncoupled indices"
    removes = "zeros"
    group = "selection ablation"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, MaskedCurve(budget, Masks(), self._choose, estimate=True))

    def live_units(self, model: nn.Module, pair: CoupledPair, side: str) -> Tensor:
        """Units of one side of a pair that are not masked, ascending.

        Args:
            model: the model that is trained.
            pair: one of its pairs.
            side: "left" or "right".

        Returns:
            int64 (groups, live), in [0, width / unit).
        """
        axis = (pair.left if side == "left" else pair.right)[0]
        if axis.parameter not in self.masks.removed:
            return torch.arange(pair.units, device="cpu").repeat(pair.groups, 1)
        mask = self.masks.removed[axis.parameter].cpu()
        others = [dimension for dimension in range(mask.ndim) if dimension != axis.axis]
        gone = (mask.all(dim=others) if others else mask)[axis.index[:, : pair.units, 0]]
        return (~gone).nonzero()[:, 1].view(pair.groups, -1)

    def _choose(self, event: MaskedEvent) -> SparsityPlan | None:
        model = event.state.model
        pairs = {pair.name: pair for pair in coupled_pairs(model)}
        live = {(name, side): self.live_units(model, pair, side) for name, pair in pairs.items() for side in _SIDES}
        norms = {key: side_norms(model, pairs[key[0]], key[1]).gather(1, units) for key, units in live.items()}
        plan = event.sparsifier.plan(
            event.body,
            _importances(event, pairs),
            goal=event.goal,
            scores={name: _scores(norms, name) for name in pairs},
        )
        for name, positions in () if plan is None else plan.kept.items():
            for side in _SIDES:
                kept = best_units(norms[name, side], positions.shape[1] // pairs[name].unit)
                self._remove_others(model, pairs[name], side, live[name, side].gather(1, kept))
        return plan

    def _remove_others(self, model: nn.Module, pair: CoupledPair, side: str, kept: Tensor) -> None:
        gone = torch.ones(pair.groups, pair.width, dtype=torch.bool, device="cpu")
        gone.scatter_(1, unit_positions(pair, kept), False)
        for axis in pair.left if side == "left" else pair.right:
            entries = torch.zeros(model.get_parameter(axis.parameter).shape, dtype=torch.bool, device="cpu")
            entries.index_fill_(axis.axis, axis.index[gone].flatten(), True)
            self.masks.remove(model, axis.parameter, entries)


def _importances(event: MaskedEvent, pairs: dict[str, CoupledPair]) -> dict[str, float]:
    """Importance per pair over live entries: the estimator's mean counts the masked ones, whose gradient is zero."""
    assert event.estimator is not None  # this curve estimates
    widths = {pair.name: pair.width for pair in coupled_pairs(event.body)}
    return {name: value * pairs[name].width / widths[name] for name, value in event.estimator.importances().items()}


def _scores(norms: dict[tuple[str, str], Tensor], name: str) -> Tensor:
    left, right = (norms[name, side].sort(dim=1, descending=True).values for side in _SIDES)
    return left * right
