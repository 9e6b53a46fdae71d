"""CoupledSparsifier: importances and weights to a plan (paper, coupled sparsification).

It reads the model and never changes it; `surgery.apply_plan` does that with the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ecospa.accounting import parameters
from ecospa.config import ConfigError, EcoSpaConfig, TargetScope
from ecospa.families import coupled_pairs
from ecospa.pairs import CoupledPair, WeightAxis, pair_matrices, unit_positions
from ecospa.plan import SparsityPlan, index_parameters
from ecospa.selection import PairWidth, best_units, choose_widths, retained_scores


class CoupledSparsifier:
    """Chooses which indices of which pairs stay.

    Args:
        model: model of a supported family.
        config: K, theta, target, widths.
        full_size: parameters in the target scope that the target is a share of; None counts the model as it is.

    Raises:
        ConfigError: the target cannot be reached, or a width multiple is larger than a width.
        UnsupportedModelError: the model cannot be cut.

    Source: paper, coupled sparsification.
    Deviation: widths are rounded to `width_multiple`; the wanted width is remembered as a fraction, so the mean pace is
    that of the unrounded rule.
    """

    def __init__(self, model: nn.Module, config: EcoSpaConfig, full_size: int | None = None) -> None:
        self.config = config
        pairs = coupled_pairs(model)
        self.full_size = parameters(model, config.target_scope) if full_size is None else full_size
        self.target_size = round(config.target_size * self.full_size)
        self._wanted = {pair.name: float(pair.units) for pair in pairs}
        _check_widths(pairs, config)
        self._check_reachable(model, pairs)

    def size(self, model: nn.Module) -> int:
        """Parameters of the model in the target scope."""
        return parameters(model, self.config.target_scope)

    def exhausted(self, model: nn.Module) -> bool:
        """Whether every pair is at its floor."""
        return all(_next_width(pair, self.config) is None for pair in coupled_pairs(model))

    def landed(self, model: nn.Module) -> bool:
        """Whether the target is within one width step: no step of any pair fits between it and the model."""
        gap = self.size(model) - self.target_size
        for pair in coupled_pairs(model):
            width = _next_width(pair, self.config)
            if width is not None and (pair.width - width) * index_parameters(model, pair) <= gap:
                return False
        return True

    def scores(self, model: nn.Module) -> dict[str, Float[Tensor, "groups units"]]:
        """Index scores of every pair from the current weights: (groups, width / unit), float32 or wider, on the CPU.

        v_j = ||left_j||_2 * ||right_j||_2, over all matrices, copies and rotary partners of unit j of a group
        """
        return {pair.name: pair_scores(model, pair) for pair in coupled_pairs(model)}

    def plan(
        self,
        model: nn.Module,
        importances: Mapping[str, float],
        goal: int | None = None,
        scores: Mapping[str, Float[Tensor, "groups units"]] | None = None,
    ) -> SparsityPlan | None:
        """The plan of one event.

        Args:
            model: the model as it is now.
            importances: importance of every pair, finite.
            goal: parameters in the target scope that the event comes down to, and not below; None is the paper's pace,
                at which K and theta alone decide, and the target is the only limit.
            scores: index scores to use instead of the norm products of the current weights.

        Returns:
            The plan, or None when nothing is cut this time (rounding may need another event, or nothing is left).

        Raises:
            ValueError: an importance or a score is NaN or infinite, or one is missing.
        """
        pairs = {pair.name: pair for pair in coupled_pairs(model)}
        if missing := sorted(set(pairs) - set(importances)):
            raise ValueError(f"importances lacks {missing[0]}; give the importance of every pair")
        scores = self.scores(model) if scores is None else scores
        limit = self.target_size if goal is None else max(goal, self.target_size)
        widths, self._wanted = choose_widths(
            {name: self._pair_width(model, pair, scores[name]) for name, pair in pairs.items()},
            {name: importances[name] for name in pairs},
            self.config.top_k,
            self.config.importance_threshold,
            max(0, self.size(model) - limit),
            compound=goal is not None,
            land=limit == self.target_size,
        )
        if not widths:
            return None
        kept = {name: unit_positions(pairs[name], best_units(scores[name], width)) for name, width in widths.items()}
        return SparsityPlan.build(model, kept)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: sizes and wanted widths."""
        return {"full_size": self.full_size, "target_size": self.target_size, "wanted": dict(self._wanted)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the sizes and wanted widths of an earlier run."""
        self.full_size, self.target_size = int(state["full_size"]), int(state["target_size"])
        self._wanted = {name: float(width) for name, width in state["wanted"].items()}

    def _pair_width(self, model: nn.Module, pair: CoupledPair, scores: Tensor) -> PairWidth:
        retained = retained_scores(scores, per_head=self.config.granularity == "head")
        return pair_width(model, pair, self.config, retained, self._wanted[pair.name])

    def _check_reachable(self, model: nn.Module, pairs: tuple[CoupledPair, ...]) -> None:
        smallest = self.size(model)
        for pair in pairs:
            step, floor = _step(pair, self.config), _floor(pair, self.config)
            narrowest = min(pair.units, -(-floor // step) * step)
            smallest -= (pair.units - narrowest) * pair.unit * index_parameters(model, pair)
        if self.target_size < smallest:
            share = smallest / self.full_size
            raise ConfigError(
                f"target_size is {self.config.target_size}; the smallest reachable value is {share:.4f} of the "
                f"{self.config.target_scope} (embeddings, norms and the floors of min_width and width_multiple stay); "
                "raise target_size, lower min_width, or count target_scope='blocks'"
            )


def pair_width(
    model: nn.Module,
    pair: CoupledPair,
    config: EcoSpaConfig,
    retained: Float[Tensor, " units_plus_one"],
    wanted: float,
) -> PairWidth:
    """A pair as the choice of widths sees it, under a configuration.

    Args:
        model: the model of the pair.
        pair: the pair at its present width.
        config: gives the multiple and the floor.
        retained: (units + 1,), score left with the best units.
        wanted: fractional width that theta asked for so far, in units.
    """
    return PairWidth(
        width=pair.units,
        step=_step(pair, config),
        floor=_floor(pair, config),
        unit_parameters=pair.unit * index_parameters(model, pair),
        retained=retained,
        wanted=wanted,
    )


def plan_shrink(
    model: nn.Module,
    target_size: float = 0.5,
    *,
    target_scope: TargetScope = "parameters",
    width_multiple: int = 8,
    min_width: int | None = None,
    top_k: float = 1.0,
    importance_threshold: float = 0.9,
    importances: Mapping[str, float] | None = None,
    scores: Mapping[str, Float[Tensor, "groups units"]] | None = None,
) -> SparsityPlan:
    """One-shot plan that brings a model to a size at once.

    Args:
        model: model of a supported family.
        target_size: c, share that is left.
        target_scope: share of all "parameters", or of the "blocks" alone.
        width_multiple: widths stay multiples of this many indices.
        min_width: no pair becomes narrower; None means `width_multiple`.
        top_k: share of the pairs that carry the cut, the least important first; 1 spreads it over all.
        importance_threshold: theta of each of the rounds that the cut is made of.
        importances: importance of every pair, such as `CoupledEstimator.importances()`; None ranks all equally.
        scores: index scores of every pair; None takes the norm products of the weights.

    Returns:
        The plan; the size lands within one width step above the target.

    Raises:
        ConfigError: a value is out of range, or the target cannot be reached.

    Source: paper, coupled sparsification, all rounds at once.
    """
    config = EcoSpaConfig(
        top_k=top_k, importance_threshold=importance_threshold, target_size=target_size, target_scope=target_scope,
        width_multiple=width_multiple, min_width=min_width,
    )  # fmt: skip
    sparsifier = CoupledSparsifier(model, config)
    if importances is None:
        importances = dict.fromkeys((pair.name for pair in coupled_pairs(model)), 1.0)
    plan = sparsifier.plan(model, importances, goal=sparsifier.target_size, scores=scores)
    return SparsityPlan.build(model, {}) if plan is None else plan


@torch.no_grad()
def pair_scores(model: nn.Module, pair: CoupledPair) -> Float[Tensor, "groups units"]:
    """Index scores of one pair: product of the two sides' norms per unit.

    Args:
        model: the model of the pair.
        pair: the pair.

    Returns:
        (groups, width / unit) on the CPU, float32 or wider.
    """
    return side_norms(model, pair, "left") * side_norms(model, pair, "right")


@torch.no_grad()
def side_norms(model: nn.Module, pair: CoupledPair, side: str) -> Float[Tensor, "groups units"]:
    """Norm of every unit of one side of a pair, over its matrices, copies and rotary partners.

    Args:
        model: the model of the pair.
        pair: the pair.
        side: "left" or "right".

    Returns:
        (groups, width / unit) on the CPU, float32 or wider.
    """
    named: dict[str, Tensor] = {axis.parameter: model.get_parameter(axis.parameter) for axis in pair.axes}
    squares = [
        _index_squares(named[axis.parameter], axis) for where, axis in pair_matrices(pair, named) if where == side
    ]
    by_unit = torch.stack(squares).sum(0).view(pair.groups, pair.unit, pair.units).sum(1)
    return by_unit.sqrt()


def _index_squares(parameter: Tensor, axis: WeightAxis) -> Tensor:
    """Squared norm per shared index, (groups, width), over the other axes of the matrix and the copies."""
    wide = parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32))
    others = [position for position in range(wide.ndim) if position != axis.axis]
    return wide.square().sum(others).cpu()[axis.index].sum(-1)


def _step(pair: CoupledPair, config: EcoSpaConfig) -> int:
    return lcm(config.width_multiple, pair.unit) // pair.unit


def _floor(pair: CoupledPair, config: EcoSpaConfig) -> int:
    return max(1, -(-config.floor_width // pair.unit))


def _next_width(pair: CoupledPair, config: EcoSpaConfig) -> int | None:
    """Next narrower allowed width in indices, or None at the floor."""
    step = _step(pair, config)
    below = (pair.units - 1) // step * step
    return below * pair.unit if below >= _floor(pair, config) else None


def _check_widths(pairs: tuple[CoupledPair, ...], config: EcoSpaConfig) -> None:
    for field, value in (("width_multiple", config.width_multiple), ("min_width", config.floor_width)):
        narrowest = min(pairs, key=lambda pair: pair.width)
        if value > narrowest.width:
            raise ConfigError(
                f"{field} is {value}, larger than the width {narrowest.width} of {narrowest.name}, "
                f"which could never be cut; choose a value in [1, {narrowest.width}]"
            )
