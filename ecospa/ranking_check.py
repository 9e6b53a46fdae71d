"""Test of an importance before it cuts: do the pairs that it calls least important really matter less than the others?

The loss says it directly. On copies of the model the K least important pairs lose half of their width, and the K most
important ones; a ranking that is any good makes the first cut the cheaper one (paper: an importance estimate that is
flawed removes critical circuitry).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ecospa.families import coupled_pairs
from ecospa.health import FailureSignatureWarning, Finding
from ecospa.pairs import unit_positions
from ecospa.plan import SparsityPlan
from ecospa.selection import best_units, select_pairs
from ecospa.sparsifier import pair_scores
from ecospa.sparsity import CoupledSparsity
from ecospa.surgery import apply_plan

Loss = Callable[[nn.Module], float]


@dataclass(frozen=True)
class RankingCheck:
    """Losses of one batch or more, with the model as it is and with one half of the ranking narrowed.

    Attributes:
        dense: of the model as it is.
        least: with the K least important pairs at half of their width.
        most: with the K most important pairs at half of their width.
        reversed: the least important ones cost more, by more than a margin.
    """

    dense: float
    least: float
    most: float
    reversed: bool


def compare_ranking(
    model: nn.Module, importances: Mapping[str, float], loss: Loss, top_k: float = 0.30, margin: float = 0.01
) -> RankingCheck:
    """Losses with either end of a ranking cut; three evaluations, and one copy of the model at a time.

    Args:
        model: of a supported family; it is not changed, and in evaluation mode when it is evaluated.
        importances: importance of every pair that may be cut, at least two.
        loss: model -> loss on data that stay the same; under `torch.no_grad`.
        top_k: K, share of the pairs at either end, at most half of them.
        margin: share of the loss by which the least important pairs must cost more than the most important ones.

    Raises:
        ValueError: there are fewer than two pairs.
    """
    ranked = select_pairs(importances, 1.0)
    count = min(len(select_pairs(importances, top_k)), len(ranked) // 2)
    if count == 0:
        raise ValueError(f"importances has {len(ranked)} pairs; a ranking has two at least")
    was_training = model.training
    model.eval()
    try:
        dense, least, most = (_loss_without(model, names, loss) for names in ((), ranked[:count], ranked[-count:]))
    finally:
        model.train(was_training)
    return RankingCheck(dense, least, most, least - most > margin * abs(dense))


def check_ranking(sparsity: CoupledSparsity, loss: Loss, margin: float = 0.01) -> RankingCheck:
    """Compare both ends of the ranking that the next event would use, and warn where it is upside down.

    Call it after `after_backward()`, before the first event or before any: `sparsity.next_event` tells when.

    Args:
        sparsity: the run, with gradients since its last event.
        loss: as for `compare_ranking`.
        margin: as for `compare_ranking`.

    Raises:
        RuntimeError: no gradient was seen since the last event.
    """
    model, step = sparsity.model, sparsity.step
    measured = sparsity.estimator.importances()
    mine = {pair.name: measured[pair.name] for pair in sparsity.sparsifier.pairs(model) if pair.name in measured}
    found = compare_ranking(model, mine, loss, sparsity.config.top_k, margin)
    if found.reversed:
        warnings.warn(as_finding(found, step).message, FailureSignatureWarning, stacklevel=2)
    return found


def as_finding(found: RankingCheck, step: int) -> Finding:
    """The failure signature that a reversed ranking is."""
    message = (
        f"step {step}: the pairs that the importance calls least important matter most: at half of their width the "
        f"loss is {found.least:.4g}, with the most important ones {found.most:.4g}, with all whole {found.dense:.4g}; "
        "use the default estimator, or turn the ranking around: an event cuts the pairs of lowest importance"
    )
    return Finding("reversed ranking", step, step, found.most, found.least, message)


@torch.no_grad()
def _loss_without(model: nn.Module, names: Sequence[str], loss: Loss) -> float:
    """Loss of the model with half of the width of some pairs, those of the best index scores."""
    if not names:
        return float(loss(model))
    narrow = copy.deepcopy(model)
    kept = {
        pair.name: unit_positions(pair, best_units(pair_scores(narrow, pair), max(1, pair.units // 2)))
        for pair in coupled_pairs(narrow)
        if pair.name in names
    }
    apply_plan(narrow, SparsityPlan.build(narrow, kept))
    return float(loss(narrow))
