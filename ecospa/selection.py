"""Selection of pairs to cut, of indices that stay, and of new widths: pure functions (paper, coupled sparsification).

theta is the share of the score that is KEPT: the other reading would make a larger theta cut more, against the paper's
finding that a larger theta trains better.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def select_pairs(importances: Mapping[str, float], top_k: float) -> list[str]:
    """Names of the ceil(top_k * n) least important pairs, the least important first.

    Args:
        importances: importance of every pair.
        top_k: K, share of the pairs to take, in (0, 1].

    Returns:
        Names; equal importances keep the order of the mapping.

    Raises:
        ValueError: `top_k` is outside (0, 1] or an importance is not finite.
    """
    count = sum(pair_counts(dict.fromkeys(importances, ""), top_k).values())
    for name, value in importances.items():
        if not math.isfinite(value):
            raise ValueError(f"the importance of {name} is {value}; nothing can be ranked by it")
    return sorted(importances, key=lambda name: importances[name])[:count]


def pair_counts(kinds: Mapping[str, str], top_k: float) -> dict[str, int]:
    """Number of pairs of every kind that K takes: ceil(top_k * n_kind), at least one.

    Args:
        kinds: kind of every pair; one value for all makes K look at all pairs alike.
        top_k: K, share of the pairs of a kind, in (0, 1].

    Raises:
        ValueError: `top_k` is outside (0, 1].
    """
    if not 0 < top_k <= 1:
        raise ValueError(f"top_k is {top_k}; it must be a share in (0, 1]")
    # the small slack keeps 0.3 * 10 from becoming 4 pairs through rounding
    return {kind: max(1, math.ceil(top_k * count - 1e-9)) for kind, count in Counter(kinds.values()).items()}


def first_of_kinds(ranked: Sequence[str], kinds: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    """The first `counts[kind]` names of every kind, in the order of the ranking.

    Args:
        ranked: names, the least important first.
        kinds: kind of every name.
        counts: how many of a kind, as `pair_counts` says.
    """
    taken: Counter[str] = Counter()
    chosen = []
    for name in ranked:
        if taken[kinds[name]] < counts[kinds[name]]:
            taken[kinds[name]] += 1
            chosen.append(name)
    return chosen


def select_indices(scores: Float[Tensor, " dim"], importance_threshold: float) -> Int64[Tensor, " kept"]:
    """The smallest index set whose scores sum to at least theta of the total, ascending.

    r = min { r : sum of the r largest v_j >= theta * sum of all v_j }

    Args:
        scores: (dim,), index scores, finite and not negative.
        importance_threshold: theta, share of the total that is kept, in (0, 1].

    Returns:
        int64 (kept,), ascending; of equal scores the earlier index stays.

    Raises:
        ValueError: theta is outside (0, 1], or a score is negative or not finite.
    """
    one_group = scores.unsqueeze(0)  # an event does the same with all heads, and rounds the width in between
    wanted = theta_width(retained_scores(one_group), importance_threshold, scores.shape[0])
    return best_units(one_group, math.ceil(wanted - 1e-9))[0]


def best_units(scores: Float[Tensor, "groups units"], kept: int) -> Int64[Tensor, "groups kept"]:
    """The `kept` units of highest score in every group, ascending; of equal scores the earlier stays."""
    order = torch.sort(_checked(scores), dim=1, descending=True, stable=True).indices
    return order[:, :kept].sort(dim=1).values


def retained_scores(scores: Float[Tensor, "groups units"], per_head: bool = False) -> Float[Tensor, " units_plus_one"]:
    """Score that is left when every group keeps its best r units, for r = 0 .. units.

    retained[r] = sum over groups of the r largest scores of the group. With `per_head` the smallest share over the
    groups stands instead, so that theta holds in every head.

    Args:
        scores: (groups, units), finite and not negative.
        per_head: take the worst head instead of the sum over heads.

    Returns:
        float64 (units + 1,), never falling.
    """
    best = torch.sort(_checked(scores).to(torch.float64), dim=1, descending=True).values
    kept = torch.cat([best.new_zeros(best.shape[0], 1), best.cumsum(1)], dim=1)
    if not per_head:
        return kept.sum(0)
    totals = kept[:, -1:]
    return torch.where(totals > 0, kept / totals.clamp_min(torch.finfo(torch.float64).tiny), 1.0).min(0).values


def theta_width(retained: Float[Tensor, " units_plus_one"], importance_threshold: float, width: int) -> float:
    """Fractional number of units that retain theta of what `width` units retain.

    The retained score is read as a straight line between whole units; rounded up, this is the smallest whole number of
    units whose score is at least theta of the total.

    Args:
        retained: score left with the best 0, 1, 2, ... units, never falling.
        importance_threshold: theta, in (0, 1].
        width: units that are there now.

    Returns:
        Units, in [0, width].
    """
    if not 0 < importance_threshold <= 1:
        raise ValueError(f"importance_threshold is {importance_threshold}; it must be a share in (0, 1]")
    # relative slack: a sum in another order must not cost one more index
    goal = float(importance_threshold * retained[width]) * (1 - 1e-12)
    whole = int(torch.searchsorted(retained[: width + 1].contiguous(), goal))
    if whole == 0:
        return 0.0
    below, above = float(retained[whole - 1]), float(retained[whole])
    return whole - 1 + (goal - below) / (above - below)


_PATIENCE = 1000
"""Rounds of theta in which no width changes before single steps take their place; 0.999 needs some 100 of them."""


@dataclass(frozen=True, eq=False)
class PairWidth:
    """One pair as the choice of widths sees it; all widths in units of the pair (rotary couples count once).

    Attributes:
        width: units that are there now.
        step: units that leave together so that the width stays a multiple.
        floor: units below which the pair is not cut.
        unit_parameters: parameters that one unit of width holds, over all groups.
        retained: score left with the best r units, r = 0 .. width.
        wanted: fractional width that theta asked for so far, in [0, width].
    """

    width: int
    step: int
    floor: int
    unit_parameters: int
    retained: Float[Tensor, " units_plus_one"]
    wanted: float

    def narrower(self, width: int) -> int | None:
        """The next smaller allowed width below `width`, or None at the floor."""
        below = (width - 1) // self.step * self.step
        return below if below >= self.floor and below > 0 else None


def choose_widths(
    pairs: Mapping[str, PairWidth],
    importances: Mapping[str, float],
    top_k: float,
    importance_threshold: float,
    removable: int,
    *,
    compound: bool,
    land: bool,
    kinds: Mapping[str, str] | None = None,
) -> tuple[dict[str, int], dict[str, float]]:
    """Widths after one event: theta cuts the K least important pairs, and never more than `removable` parameters go.

    Each of those pairs wants the width that keeps theta of its score: of n units theta keeps r, so w <- w * r / n. The
    wanted width is fractional and remembered, and the pair is cut when the wish has passed the next multiple: rounding
    delays a cut and never stalls it.

    Args:
        pairs: every pair by name.
        importances: importance of every pair.
        top_k: K, share of the pairs that the event cuts.
        importance_threshold: theta, share of the score that one cut keeps.
        removable: parameters that may go at most.
        compound: cut the same pairs by theta again, and the next K when those are at their floor, until `removable` is
            used up (a size is prescribed); False is one cut each (K and theta alone decide).
        land: `removable` is what separates the model from its target: when it runs out, single steps of any pair, least
            important first, bring the size within one width step of it.
        kinds: kind of every pair, where K is a share of every kind; None makes it a share of all pairs.

    Returns:
        New widths of the pairs that change, and the wanted widths of all pairs; both in units.
    """
    state = _WidthChoice(pairs, removable)
    ranked = select_pairs(importances, 1.0)
    kinds = dict.fromkeys(ranked, "") if kinds is None else kinds
    counts = pair_counts({name: kinds[name] for name in ranked}, top_k)
    # a pair at its floor cannot be cut and must not take the place of one that can
    chosen = first_of_kinds(list(filter(state.above_floor, ranked)), kinds, counts)
    patience = _PATIENCE
    while chosen:
        before = state.removable
        for name in chosen:
            state.cut(name, importance_threshold)
        if not compound:
            break
        patience = _PATIENCE if state.removable < before and patience else max(0, patience - 1)
        if patience == 0 and state.fits(chosen[0]):  # theta is so near 1 that its cuts would take for ever
            state.step(chosen[0])
        remaining = [name for name in chosen if state.fits(name)]
        exhausted = not any(state.above_floor(name) for name in chosen)
        chosen = first_of_kinds(list(filter(state.fits, ranked)), kinds, counts) if exhausted else remaining
    if land and (compound or state.truncated):
        state.fill(ranked)
    return {name: width for name, width in state.width.items() if width != pairs[name].width}, state.wanted


class _WidthChoice:
    """Widths while an event is being planned; `removable` shrinks as they do."""

    def __init__(self, pairs: Mapping[str, PairWidth], removable: int) -> None:
        self.pairs = pairs
        self.removable = removable
        self.width = {name: pair.width for name, pair in pairs.items()}
        self.wanted = {name: min(pair.wanted, float(pair.width)) for name, pair in pairs.items()}
        self.truncated = False

    def above_floor(self, name: str) -> bool:
        """Return whether the pair has a narrower allowed width at all."""
        return self.pairs[name].narrower(self.width[name]) is not None

    def fits(self, name: str) -> bool:
        """Return whether one more step of this pair may go."""
        narrower = self.pairs[name].narrower(self.width[name])
        return narrower is not None and self._cost(name, narrower) <= self.removable

    def cut(self, name: str, importance_threshold: float) -> None:
        """Lower the wanted width by theta and the width to the multiple above it, as far as `removable` allows."""
        pair, now = self.pairs[name], self.width[name]
        kept = theta_width(pair.retained, importance_threshold, now)
        self.wanted[name] = max(float(pair.floor), self.wanted[name] * kept / now)
        while (narrower := pair.narrower(self.width[name])) is not None and narrower >= self.wanted[name] - 1e-9:
            if self._cost(name, narrower) > self.removable:
                self.truncated = True
                return
            self._set(name, narrower)

    def step(self, name: str) -> None:
        """Take one step of this pair, whatever theta asked for."""
        narrower = self.pairs[name].narrower(self.width[name])
        assert narrower is not None  # the caller has seen that it fits
        self._set(name, narrower)
        self.wanted[name] = min(self.wanted[name], float(narrower))

    def fill(self, ranked: list[str]) -> None:
        """Single steps, least important first, until none fits: lands within one width step of the limit."""
        for name in ranked:
            while (narrower := self.pairs[name].narrower(self.width[name])) is not None:
                if self._cost(name, narrower) > self.removable:
                    break
                self._set(name, narrower)
                self.wanted[name] = min(self.wanted[name], float(narrower))

    def _cost(self, name: str, width: int) -> int:
        return (self.width[name] - width) * self.pairs[name].unit_parameters

    def _set(self, name: str, width: int) -> None:
        self.removable -= self._cost(name, width)
        self.width[name] = width


def _checked(scores: Tensor) -> Tensor:
    if not bool(torch.isfinite(scores).all()) or bool((scores < 0).any()):
        raise ValueError("scores hold a negative, NaN or infinite entry; scores are norms, look for broken weights")
    return scores
