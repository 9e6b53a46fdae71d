"""CoupledSparsifier: importances and weights to a plan (paper, coupled sparsification).

It reads the model and never changes it; `surgery.apply_plan` does that with the plan, and with copies of blocks that
are not stock, to see whether they can be cut at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from math import lcm
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ecospa.accounting import parameters
from ecospa.config import ConfigError, EcoSpaConfig, RelativeTo, TargetScope
from ecospa.dense import dense_parameters, dense_shape
from ecospa.exactness import require_exact
from ecospa.families import coupled_pairs
from ecospa.frozen import told, trained_pairs
from ecospa.importance import unit_norms
from ecospa.pairs import CoupledPair, pair_matrices, unit_positions
from ecospa.plan import SparsityPlan, index_parameters
from ecospa.selection import PairWidth, best_units, choose_widths, retained_scores
from ecospa.surgery import apply_plan
from ecospa.tying import tie, tie_values, twins, untie
from ecospa.unit_selection import choose_units
from ecospa.width_rule import WidthRule
from ecospa.width_timing import device_rule
from ecospa.wrappers import unwrapped


class CoupledSparsifier:
    """Chooses which indices of which pairs stay.

    Args:
        model: model of a supported family.
        config: K, theta, target, widths.
        full_size: parameters in the target scope that the target is a share of; None counts the dense model, also
            where the model has been cut before, or the model as it is for `relative_to="current"`.
        rule: which widths pairs may have, as an earlier run settled it; None settles it from the configuration, which
            takes a few seconds where "auto" measures.
        cut_frozen: choose from pairs that do not train as well; they stay whole otherwise.
        pairs: all pairs of the model as they are now, where the caller has just derived them.

    Attributes:
        rule: which widths pairs may have.
        full_size: parameters in the target scope that the target is a share of.
        start_size: parameters in the target scope when the run began, not less than the target.
        target_size: parameters in the target scope at the end.

    Raises:
        ConfigError: the target cannot be reached, or a width multiple is larger than a width.
        UnsupportedModelError: the model cannot be cut.

    Source: paper, coupled sparsification.
    Deviation: widths are rounded to `width_multiple`; the wanted width is remembered as a fraction, so the mean pace is
    that of the unrounded rule.
    """

    def __init__(
        self,
        model: nn.Module,
        config: EcoSpaConfig,
        full_size: int | None = None,
        rule: WidthRule | None = None,
        *,
        cut_frozen: bool = False,
        pairs: Sequence[CoupledPair] | None = None,
    ) -> None:
        model = unwrapped(model)
        self.config, self._cut_frozen = config, cut_frozen
        pairs = coupled_pairs(model) if pairs is None else pairs
        require_exact(model, apply_plan)
        self.rule = width_rule(model, config, pairs) if rule is None else rule
        self.full_size = _full_size(model, config, pairs) if full_size is None else full_size
        self.target_size = round(config.target_size * self.full_size)
        self.start_size = max(self.size(model), self.target_size)
        self._wanted = {pair.name: float(pair.units) for pair in pairs}
        if self.size(model) > self.target_size:
            _check_widths(model, pairs, self.pairs(model, pairs), config, self.rule)
            self._check_reachable(model, pairs)

    def pairs(self, model: nn.Module, pairs: Sequence[CoupledPair] | None = None) -> tuple[CoupledPair, ...]:
        """The pairs that may be cut: those that train, or all.

        Args:
            model: the model as it is now.
            pairs: all its pairs, where the caller has just derived them; so for every method here that takes `pairs`.
        """
        pairs = coupled_pairs(model) if pairs is None else pairs
        return tuple(pairs) if self._cut_frozen else trained_pairs(model, pairs, self.rule.tied)

    def standing(self, model: nn.Module) -> str:
        """Describe where the model is and what was asked for."""
        whole = _whole(self.config.target_scope, self.config.relative_to)
        share = self.size(model) / self.full_size
        return f"the model has {share:.3f} of the {whole}, {self.config.target_size:g} was asked for"

    def size(self, model: nn.Module) -> int:
        """Parameters of the model in the target scope."""
        return parameters(model, self.config.target_scope)

    def exhausted(self, model: nn.Module, pairs: Sequence[CoupledPair] | None = None) -> bool:
        """Return True when every pair is at its floor."""
        return not any(True for _ in self._next_cuts(model, pairs))

    def landed(self, model: nn.Module, pairs: Sequence[CoupledPair] | None = None) -> bool:
        """Return True when the target is within one width step: none of any pair fits between it and the model."""
        gap = self.size(model) - self.target_size
        return all(cut > gap for cut in self._next_cuts(model, pairs))

    def scores(self, model: nn.Module) -> dict[str, Float[Tensor, "groups units"]]:
        """Index scores of every pair from the current weights: (groups, width / unit), float32 or wider, on the CPU.

        v_j = ||left_j||_2 * ||right_j||_2, over all matrices, copies and rotary partners of unit j of a group
        """
        model = unwrapped(model)
        return norm_products(model, coupled_pairs(model))

    def plan(
        self,
        model: nn.Module,
        importances: Mapping[str, float],
        goal: int | None = None,
        scores: Mapping[str, Float[Tensor, "groups units"]] | None = None,
        pairs: Sequence[CoupledPair] | None = None,
    ) -> SparsityPlan | None:
        """The plan of one event.

        Args:
            model: the model as it is now.
            importances: importance of every pair that may be cut, finite.
            goal: parameters in the target scope that the event comes down to, and not below; None is the paper's pace,
                at which K and theta alone decide, and the target is the only limit.
            scores: index scores to use instead of the norm products of the current weights; for `ranking="units"`
                effects on the loss, by which alone it chooses.
            pairs: all pairs of the model, where the caller has just derived them.

        Returns:
            The plan, or None when nothing is cut this time (rounding may need another event, or nothing is left).

        Raises:
            ValueError: an importance or a score is NaN or infinite, or one is missing; `ranking="units"` has no goal.
        """
        model = unwrapped(model)
        every = coupled_pairs(model) if pairs is None else pairs
        mine = {pair.name: pair for pair in self.pairs(model, every)}
        if missing := sorted(set(mine) - set(importances)):
            raise ValueError(f"importances lacks {missing[0]}; give the importance of every pair that may be cut")
        scores = norm_products(model, tuple(mine.values())) if scores is None else scores
        per_head = self.config.granularity == "head"
        retained = {name: retained_scores(scores[name], per_head) for name in mine}
        chosen, wanted = self._choose(model, mine, retained, importances, goal)
        self._wanted |= wanted
        if not chosen:
            return None
        kept = {
            name: unit_positions(mine[name], best_units(scores[name], round(width))) for name, width in chosen.items()
        }
        return SparsityPlan.build(model, kept, self.rule.reason, every)

    def _choose(
        self,
        model: nn.Module,
        mine: Mapping[str, CoupledPair],
        retained: Mapping[str, Float[Tensor, " units_plus_one"]],
        importances: Mapping[str, float],
        goal: int | None,
    ) -> tuple[dict[str, float], dict[str, float]]:
        """New widths of the pairs that change, and wanted widths of all; each pair in its own units."""
        tied = twins(tuple(mine.values())) if self.rule.tied else ()
        widths = self._pair_widths(model, mine.values(), retained)
        limit = self.target_size if goal is None else max(goal, self.target_size)
        removable, land = max(0, self.size(model) - limit), limit == self.target_size
        if self.config.ranking == "units":
            if goal is None:
                raise ValueError("goal is None; ranking='units' cuts down to a size, give it")
            chosen, wanted = choose_units(tie(tied, widths, shares=False), removable, land=land)
        else:
            chosen, wanted = choose_widths(
                tie(tied, widths),
                tie_values(tied, {name: importances[name] for name in mine}),
                self.config.top_k,
                self.config.importance_threshold,
                removable,
                compound=goal is not None,
                land=land,
                kinds={name: pair.kind for name, pair in mine.items()} if self.config.select_within == "kind" else None,
            )
        return untie(tied, chosen), untie(tied, wanted)

    def pair_widths(self, model: nn.Module, pairs: Sequence[CoupledPair] | None = None) -> dict[str, PairWidth]:
        """Every pair that may be cut as the choice of widths sees it, all units equal, before twins are tied."""
        model = unwrapped(model)
        return self._pair_widths(model, self.pairs(model, pairs))

    def _pair_widths(
        self,
        model: nn.Module,
        mine: Iterable[CoupledPair],
        retained: Mapping[str, Float[Tensor, " units_plus_one"]] | None = None,
    ) -> dict[str, PairWidth]:
        """The same for the pairs that are given, with (units + 1,) per pair, score left with the best units."""
        mine = tuple(mine)
        dense = dense_shape(model, mine)
        return {
            pair.name: PairWidth(
                width=pair.units,
                step=_step(pair, self.rule),
                floor=_floor(pair, dense[pair.name][1], self.config, self.rule),
                unit_parameters=pair.unit * index_parameters(model, pair),
                retained=_flat(pair.units) if retained is None else retained[pair.name],
                wanted=self._wanted[pair.name],
            )
            for pair in mine
        }

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: sizes and wanted widths."""
        sizes = {"full_size": self.full_size, "start_size": self.start_size, "target_size": self.target_size}
        return {**sizes, "wanted": dict(self._wanted), "rule": asdict(self.rule)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the sizes, the rule and the wanted widths of an earlier run."""
        if "rule" in state:  # states of earlier releases have none: their multiple was a number
            self.rule = WidthRule(**state["rule"])
        self.full_size, self.target_size = int(state["full_size"]), int(state["target_size"])
        self.start_size = int(state.get("start_size", self.full_size))  # earlier releases had no other start
        self._wanted = {name: float(width) for name, width in state["wanted"].items()}

    def _entries(self, model: nn.Module, pairs: Sequence[CoupledPair] | None) -> dict[str, PairWidth]:
        mine = self.pairs(unwrapped(model), pairs)
        return tie(twins(mine) if self.rule.tied else (), self._pair_widths(unwrapped(model), mine))

    def _next_cuts(self, model: nn.Module, pairs: Sequence[CoupledPair] | None) -> Iterator[int]:
        """Parameters that the next width step of every pair, or of twins, removes; those at their floor have none."""
        for entry in self._entries(model, pairs).values():
            if (width := entry.narrower(entry.width)) is not None:
                yield (entry.width - width) * entry.unit_parameters

    def _check_reachable(self, model: nn.Module, pairs: Sequence[CoupledPair]) -> None:
        smallest = self.size(model)
        for entry in self._entries(model, pairs).values():
            narrowest = min(entry.width, -(-entry.floor // entry.step) * entry.step)
            smallest -= (entry.width - narrowest) * entry.unit_parameters
        if self.target_size < smallest:
            raise ConfigError(self._unreachable(model, pairs, smallest))

    def _unreachable(self, model: nn.Module, pairs: Sequence[CoupledPair], smallest: int) -> str:
        asked = f"target_size is {self.config.target_size}"
        frozen = {pair.name for pair in pairs} - {pair.name for pair in self.pairs(model, pairs)}
        if len(frozen) == len(pairs):
            return (
                f"{asked}, but all {len(pairs)} pairs are frozen (requires_grad is False), so nothing is left to cut "
                "while training: adapters on a frozen base train no coupled matrix. Set requires_grad before "
                "CoupledSparsity is made, or cut at once with plan_shrink and apply_plan and train afterwards"
            )
        whole = _whole(self.config.target_scope, self.config.relative_to)
        share = math.ceil(smallest / self.full_size * 1e4) / 1e4  # rounded up: the value itself can be asked for
        left = f"; {told(frozen, len(pairs))}" if frozen else ""
        way_out = "train more pairs, raise target_size" if frozen else "raise target_size"
        fields = ("min_width", "min_share") if self.config.min_share else ("min_width",)
        return (
            f"{asked}; the smallest reachable value is {share:.4f} of the {whole} (embeddings, norms and the floors of "
            f"{', '.join(fields)} and width_multiple stay){left}; {way_out}, lower {' or '.join(fields)}, or count "
            "target_scope='blocks'"
        )


def _whole(scope: TargetScope, relative_to: RelativeTo) -> str:
    """Name the total that a target is a share of."""
    of = "dense model" if relative_to == "dense" else "model as it was given"
    return f"{'block parameters' if scope == 'blocks' else 'parameters'} of the {of}"


def _full_size(model: nn.Module, config: EcoSpaConfig, pairs: Sequence[CoupledPair]) -> int:
    if config.relative_to == "dense":
        return dense_parameters(model, config.target_scope, pairs)
    return parameters(model, config.target_scope)


def width_rule(model: nn.Module, config: EcoSpaConfig, pairs: Sequence[CoupledPair]) -> WidthRule:
    """The rule that a configuration asks for, measured on the model's device where it says "auto"."""
    given = config.width_multiple
    if isinstance(given, WidthRule):
        return given
    return device_rule(model, pairs=pairs) if given == "auto" else WidthRule.uniform(given)


Scorer = Callable[[nn.Module, Sequence[CoupledPair]], Mapping[str, Tensor]]
"""(model, pairs that may be cut) -> index scores of each: (groups, width / unit), finite and not negative."""


def norm_products(model: nn.Module, pairs: Sequence[CoupledPair]) -> dict[str, Float[Tensor, "groups units"]]:
    """Index scores of pairs from the current weights (a `Scorer`, the one that is used unless another is given).

    v_j = ||left_j||_2 * ||right_j||_2, over all matrices, copies and rotary partners of unit j of a group

    Args:
        model: the model of the pairs.
        pairs: some or all of its pairs, as they are now.

    Returns:
        Pair name -> (groups, width / unit) on the CPU, float32 or wider.
    """
    return {pair.name: pair_scores(model, pair) for pair in pairs}


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
    axes = [axis for where, axis in pair_matrices(pair, named) if where == side]
    return unit_norms([(named[axis.parameter], axis.axis, axis.index) for axis in axes], pair.unit)


def _step(pair: CoupledPair, rule: WidthRule) -> int:
    return lcm(rule.multiple(pair.kind), pair.unit) // pair.unit


def _floor(pair: CoupledPair, dense_width: int, config: EcoSpaConfig, rule: WidthRule) -> int:
    """Units below which a pair is not cut: of `min_width`, or of its multiple, and of `min_share`."""
    share = config.min_share * dense_width - 1e-9  # 0.15 * 20 is 3, whatever its rounding
    return max(1, *(math.ceil(width / pair.unit) for width in (config.floor_width(rule, pair.kind), share)))


def _flat(units: int) -> Float[Tensor, " units_plus_one"]:
    return torch.arange(units + 1, dtype=torch.float64)


def _check_widths(
    model: nn.Module,
    pairs: Sequence[CoupledPair],
    mine: Sequence[CoupledPair],
    config: EcoSpaConfig,
    rule: WidthRule,
) -> None:
    dense = dense_shape(model, pairs)  # a pair that earlier cuts left below a multiple is at its floor, which is fine
    for pair in sorted(mine, key=lambda pair: pair.width):
        width = max(pair.width, dense[pair.name][1])
        for field, value in (
            ("width_multiple", rule.multiple(pair.kind)),
            ("min_width", config.floor_width(rule, pair.kind)),
        ):
            if value > width:
                raise ConfigError(
                    f"{field} is {value}, larger than the width {width} of {pair.name}, "
                    f"which could never be cut; choose a value in [1, {width}]"
                )
