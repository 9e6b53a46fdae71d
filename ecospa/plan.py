"""A sparsity plan: which inner indices of which pairs stay. Immutable, countable before it is applied, JSON both ways.

Planning and cutting are apart, so that a plan can be inspected, stored, sent to other processes and applied to a model,
its optimizer and its moving averages alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from ecospa.families import coupled_pairs
from ecospa.pairs import CoupledPair, WeightAxis
from ecospa.plan_text import LARGEST, fields_of, rows_of, shown
from ecospa.wrappers import refuse_unsupported

PLAN_VERSION = 1


class PlanError(ValueError):
    """A plan that is malformed or belongs to another model; the message names the pair and the difference."""


@dataclass(frozen=True, eq=False)
class SparsityPlan:
    """Indices that stay of every coupled pair.

    Attributes:
        kept: pair name -> int64 (groups, kept), ascending positions within the current width (both rotary partners);
            a pair that is not named stays whole.
        widths: width of every pair of the model that the plan was made for; applying checks it.
        parameters_before: parameters of that model.
        parameters_after: parameters when the plan has been applied.
        reason: why widths are multiples of what they are, in words; empty where nobody said.

    Raises:
        PlanError: a field is of another type or contradicts another one. Whether the plan fits a model is checked when
            it is applied.
    """

    kept: Mapping[str, Int64[Tensor, "groups kept"]]
    widths: Mapping[str, int]
    parameters_before: int
    parameters_after: int
    reason: str = ""

    def __post_init__(self) -> None:
        self._check_form()

    @classmethod
    def build(
        cls,
        model: nn.Module,
        kept: Mapping[str, Int64[Tensor, "groups kept"]],
        reason: str = "",
        pairs: Sequence[CoupledPair] | None = None,
    ) -> SparsityPlan:
        """An explicit plan, checked against the model.

        Args:
            model: model of a supported family, on any device, the meta device too.
            kept: pair name -> int64 (groups, kept); pairs that are not named stay whole.
            reason: why widths are what they are, for those who read the plan.
            pairs: all pairs of the model as they are now, where the caller has just derived them.

        Returns:
            The plan. Entries that keep everything are dropped from it.

        Raises:
            PlanError: an unknown pair, a wrong shape, a position out of range or out of order, or a split rotary
                couple.
            UnsupportedModelError: the model cannot be cut, or its weights are sharded, replicated or offloaded.
        """
        refuse_unsupported(model, needs_weights=False)
        named = _named(model, pairs)
        if not isinstance(kept, Mapping):
            raise PlanError(f"kept is a {type(kept).__name__}; give a mapping from names of pairs to positions")
        checked = {name: _checked(name, positions, named) for name, positions in kept.items()}
        cut = {name: positions for name, positions in checked.items() if positions.shape[1] < named[name].width}
        return cls(cut, {name: pair.width for name, pair in named.items()}, *_counts(model, named, cut), reason)

    def pairs_of(self, model: nn.Module) -> dict[str, CoupledPair]:
        """The model's pairs by name, after checking that the plan is one that `build` makes for this model.

        Raises:
            PlanError: a pair is missing, new, or of another width, an entry is malformed, or the parameters are not
                those that the plan counts.
            UnsupportedModelError: the model cannot be cut.
        """
        pairs, kept = self.entries_for(model)
        self.check_counts(model, pairs, kept)
        return pairs

    def entries_for(
        self, model: nn.Module, pairs: Sequence[CoupledPair] | None = None
    ) -> tuple[dict[str, CoupledPair], dict[str, Int64[Tensor, "groups kept"]]]:
        """The pairs of a model by name and what stays of those that are cut, every entry checked as `build` does.

        Args:
            model: model of these widths; its parameters outside the pairs may be others.
            pairs: all pairs of the model as they are now, where the caller has just derived them.

        Raises:
            PlanError: as for `pairs_of`, but for the number of parameters.
            UnsupportedModelError: the model cannot be cut.
        """
        self._check_form()
        named = _named(model, pairs)
        found = {name: pair.width for name, pair in named.items()}
        if found != dict(self.widths):
            names = sorted(set(found) ^ set(self.widths))
            names = names or sorted(name for name in found if found[name] != self.widths[name])
            first, wanted = names[0], self.widths.get(names[0], "absent")
            raise PlanError(
                f"{shown(first)}: the plan was made for width {shown(wanted)}, this model has "
                f"{found.get(first, 'no such pair')}; build a new plan for this model"
            )
        checked = {name: _checked(name, positions, named) for name, positions in self.kept.items()}
        return named, {name: rows for name, rows in checked.items() if rows.shape[1] < named[name].width}

    def remaining(self, model: nn.Module) -> SparsityPlan:
        """The part of this plan that a model has not had yet, where `apply_plan(..., by_block=True)` was stopped.

        Args:
            model: the model that the plan was made for, some of its blocks already cut.

        Raises:
            PlanError: a pair has neither its width before the plan nor the one after it.
        """
        after, left = self.widths_after(), {}
        pairs = coupled_pairs(model)
        for pair in pairs:
            if pair.width not in (self.widths.get(pair.name), after.get(pair.name)):
                raise PlanError(f"{pair.name}: width {pair.width} is neither that before nor that after the plan")
            if pair.name in self.kept and pair.width == self.widths[pair.name]:
                left[pair.name] = self.kept[pair.name]
        return SparsityPlan.build(model, left, self.reason, pairs)

    def widths_after(self) -> dict[str, int]:
        """Width of every pair once the plan has been applied.

        Raises:
            PlanError: the plan was changed into something that is none.
        """
        self._check_form()
        return {name: self.kept[name].shape[1] if name in self.kept else width for name, width in self.widths.items()}

    def to_json(self) -> str:
        """The plan as JSON text.

        Raises:
            PlanError: the plan was changed into something that is none.
        """
        self._check_form()
        kept = {name: positions.tolist() for name, positions in self.kept.items()}
        counts = {"parameters_before": self.parameters_before, "parameters_after": self.parameters_after}
        content = {"version": PLAN_VERSION, "widths": dict(self.widths), "kept": kept, **counts, "reason": self.reason}
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> SparsityPlan:
        """The plan that `to_json` wrote.

        Raises:
            PlanError: the text is no JSON, of another version, or has fields that are missing, unknown or malformed.
        """
        try:
            content = fields_of(text)
        except ValueError as error:
            raise PlanError(f"this is not a plan ({error}); give the text that SparsityPlan.to_json wrote") from error
        if type(content["version"]) is not int or content["version"] != PLAN_VERSION:
            raise PlanError(f"version is {shown(content['version'])}; this release reads {PLAN_VERSION}")
        if not isinstance(content["kept"], dict):
            raise PlanError(f"kept is {shown(content['kept'])}; it must be an object from names of pairs to rows")
        kept = {name: _tensor(name, rows) for name, rows in content["kept"].items()}
        counts = content["parameters_before"], content["parameters_after"]
        return cls(kept, content["widths"], *counts, content.get("reason", ""))

    def check_counts(self, model: nn.Module, pairs: Mapping[str, CoupledPair], kept: Mapping[str, Tensor]) -> None:
        """Compare what the plan says of its size with a model.

        Args:
            model: the model.
            pairs: its pairs by name.
            kept: what stays of those that are cut, as `entries_for` gave it.

        Raises:
            PlanError: the plan counts other parameters.
        """
        before, after = _counts(model, pairs, kept)
        for field, told, counted in (
            ("parameters_before", self.parameters_before, before),
            ("parameters_after", self.parameters_after, after),
        ):
            if told != counted:
                raise PlanError(
                    f"{field} is {shown(told)} in the plan, {counted} by this model; build a new plan for this model"
                )

    def _check_form(self) -> None:
        """Everything that can be checked without the model; again before each use, because mappings can change."""
        for field, value in (("kept", self.kept), ("widths", self.widths)):
            if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
                raise PlanError(f"{field} is {shown(value)}; it must be a mapping from names of pairs")
        for name, width in self.widths.items():
            if type(width) is not int or not 1 <= width <= LARGEST:
                raise PlanError(f"{shown(name)}: width is {shown(width)}; it must be a whole number from 1 on")
        for name, positions in self.kept.items():
            _check_tensor(name, positions)
            width = self.widths.get(name, 0)
            if positions.shape[1] > width:
                raise PlanError(f"{shown(name)}: {positions.shape[1]} positions are kept of a width of {width}")
        before, after = self.parameters_before, self.parameters_after
        if type(before) is not int or type(after) is not int or not 0 <= after <= before <= LARGEST:
            raise PlanError(
                f"parameters_before is {shown(before)} and parameters_after {shown(after)}; they must be whole "
                "numbers, the second at most the first"
            )
        if not isinstance(self.reason, str):
            raise PlanError(f"reason is {shown(self.reason)}; it must be text")


def _named(model: nn.Module, pairs: Sequence[CoupledPair] | None) -> dict[str, CoupledPair]:
    return {pair.name: pair for pair in (coupled_pairs(model) if pairs is None else pairs)}


def index_parameters(model: nn.Module, pair: CoupledPair) -> int:
    """Parameters that leave with one index of a pair's width, over all groups.

    Args:
        model: the model of the pair.
        pair: the pair.

    Returns:
        Sum over its axes of groups * repeats * (entries of the parameter per position of the axis).
    """
    return sum(axis_parameters(model.get_parameter(axis.parameter), axis) for axis in pair.axes)


def axis_parameters(parameter: Tensor, axis: WeightAxis) -> int:
    """Entries of one parameter that leave with one shared index: groups * repeats * entries per position."""
    groups, _, repeats = axis.index.shape
    return groups * repeats * (parameter.numel() // parameter.shape[axis.axis])


def _counts(model: nn.Module, pairs: Mapping[str, CoupledPair], kept: Mapping[str, Tensor]) -> tuple[int, int]:
    """Parameters of a model before and after a cut."""
    before = sum(parameter.numel() for parameter in model.parameters())
    removed = sum(
        (pairs[name].width - positions.shape[1]) * index_parameters(model, pairs[name])
        for name, positions in kept.items()
    )
    return before, before - removed


def _tensor(name: str, rows: Any) -> Tensor:
    try:
        positions = torch.tensor(rows_of(rows), dtype=torch.int64, device="cpu")
    except ValueError as error:
        raise PlanError(f"{shown(name)}: {error}") from error
    _check_tensor(name, positions)
    return positions


def _check_tensor(name: str, positions: Any) -> None:
    if not isinstance(positions, Tensor):
        raise PlanError(f"{shown(name)}: kept is {shown(positions)}; it must be an int64 tensor (groups, positions)")
    plain = positions.layout is torch.strided and not positions.is_meta
    if positions.dtype != torch.int64 or positions.ndim != 2 or not plain:
        what = f"{positions.dtype} {tuple(positions.shape)}" + ("" if plain else " without plain values")
        raise PlanError(f"{shown(name)}: kept is {what}; it must be an int64 tensor (groups, positions)")
    if positions.numel() == 0:
        raise PlanError(f"{shown(name)}: kept is empty; every pair keeps at least one position per group")


def as_numbers(name: str, given: Any) -> Tensor:
    """Convert what a caller gave as positions or head numbers to a tensor on the CPU.

    Args:
        name: what they belong to, for the message.
        given: a tensor, or what becomes one (a list, an array).

    Raises:
        PlanError: nothing that a tensor could be made of, or a tensor without plain values.
    """
    try:
        numbers = given if isinstance(given, Tensor) else torch.as_tensor(given, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise PlanError(f"{shown(name)}: kept is {shown(given)}; give an int64 tensor ({error})") from error
    if numbers.layout is not torch.strided or numbers.is_meta:
        raise PlanError(f"{shown(name)}: kept has no plain values ({numbers.layout}, {numbers.device})")
    return numbers.detach().to("cpu", copy=True)


def _checked(name: str, positions: Tensor, pairs: Mapping[str, CoupledPair]) -> Tensor:
    if name not in pairs:
        raise PlanError(f"{shown(name)}: the model has no such pair; it has {', '.join(list(pairs)[:6])}, ...")
    pair = pairs[name]
    positions = as_numbers(name, positions)
    if positions.dtype != torch.int64 or positions.ndim != 2 or positions.shape[0] != pair.groups:
        shape = f"{positions.dtype} {tuple(positions.shape)}"
        raise PlanError(f"{name}: kept is {shape}; it must be int64 ({pair.groups} groups, kept positions)")
    if positions.shape[1] == 0:
        raise PlanError(f"{name}: kept is empty; every pair keeps at least {pair.unit} of its {pair.width} positions")
    if bool((positions < 0).any()) or bool((positions >= pair.width).any()):
        raise PlanError(f"{name}: kept holds a position outside [0, {pair.width})")
    if bool((positions.diff(dim=1) <= 0).any()):
        raise PlanError(f"{name}: kept must be ascending without repeats in every group")
    if pair.unit == 2:
        half = positions.shape[1] // 2
        if positions.shape[1] % 2 or not torch.equal(positions[:, :half] + pair.units, positions[:, half:]):
            raise PlanError(f"{name}: rotary partners j and j + {pair.units} must stay or go together")
    return positions
