"""A sparsity plan: which inner indices of which pairs stay. Immutable, countable before it is applied, JSON both ways.

Planning and cutting are apart, so that a plan can be inspected, stored, sent to other processes and applied to a model,
its optimizer and its moving averages alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from ecospa.families import coupled_pairs
from ecospa.pairs import CoupledPair, WeightAxis

PLAN_VERSION = 1


class PlanError(ValueError):
    """A plan that is malformed or belongs to another model; the message names the pair and the difference."""


@dataclass(frozen=True, eq=False)
class SparsityPlan:
    """What stays of every coupled pair.

    Attributes:
        kept: pair name -> int64 (groups, kept), ascending positions within the current width (both rotary partners);
            a pair that is not named stays whole.
        widths: width of every pair of the model that the plan was made for; applying checks it.
        parameters_before: parameters of that model.
        parameters_after: parameters when the plan has been applied.
        reason: why widths are multiples of what they are, in words; empty where nobody said.
    """

    kept: Mapping[str, Int64[Tensor, "groups kept"]]
    widths: Mapping[str, int]
    parameters_before: int
    parameters_after: int
    reason: str = ""

    @classmethod
    def build(
        cls, model: nn.Module, kept: Mapping[str, Int64[Tensor, "groups kept"]], reason: str = ""
    ) -> SparsityPlan:
        """An explicit plan, checked against the model.

        Args:
            model: model of a supported family, on any device, the meta device too.
            kept: pair name -> int64 (groups, kept); pairs that are not named stay whole.
            reason: why widths are what they are, for those who read the plan.

        Returns:
            The plan. Entries that keep everything are dropped from it.

        Raises:
            PlanError: an unknown pair, a wrong shape, a position out of range or out of order, or a split rotary
                couple.
            UnsupportedModelError: the model cannot be cut.
        """
        pairs = {pair.name: pair for pair in coupled_pairs(model)}
        checked = {name: _checked(name, positions, pairs) for name, positions in kept.items()}
        cut = {name: positions for name, positions in checked.items() if positions.shape[1] < pairs[name].width}
        before = sum(parameter.numel() for parameter in model.parameters())
        removed = sum(
            (pairs[name].width - positions.shape[1]) * index_parameters(model, pairs[name])
            for name, positions in cut.items()
        )
        return cls(cut, {name: pair.width for name, pair in pairs.items()}, before, before - removed, reason)

    def pairs_of(self, model: nn.Module) -> dict[str, CoupledPair]:
        """The model's pairs by name, after checking that the plan was made for a model of these widths.

        Raises:
            PlanError: a pair is missing, new, or of another width.
        """
        pairs = {pair.name: pair for pair in coupled_pairs(model)}
        found = {name: pair.width for name, pair in pairs.items()}
        if found != dict(self.widths):
            names = sorted(set(found) ^ set(self.widths))
            names = names or sorted(name for name in found if found[name] != self.widths[name])
            first, wanted = names[0], self.widths.get(names[0], "absent")
            raise PlanError(
                f"{first}: the plan was made for width {wanted}, this model has {found.get(first, 'no such pair')}; "
                "build a new plan for this model"
            )
        return pairs

    def widths_after(self) -> dict[str, int]:
        """Width of every pair once the plan has been applied."""
        return {name: self.kept[name].shape[1] if name in self.kept else width for name, width in self.widths.items()}

    def to_json(self) -> str:
        """The plan as JSON text."""
        kept = {name: positions.tolist() for name, positions in self.kept.items()}
        counts = {"parameters_before": self.parameters_before, "parameters_after": self.parameters_after}
        content = {"version": PLAN_VERSION, "widths": dict(self.widths), "kept": kept, **counts, "reason": self.reason}
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> SparsityPlan:
        """The plan that `to_json` wrote.

        Raises:
            PlanError: the text is no JSON, of another version, or lacks a field.
        """
        try:
            content = json.loads(text)
            version = content["version"]
            if version != PLAN_VERSION:
                raise PlanError(f"version is {version!r}; this release reads {PLAN_VERSION}")
            kept = {name: torch.tensor(rows, dtype=torch.int64, device="cpu") for name, rows in content["kept"].items()}
            if bad := [name for name, positions in kept.items() if positions.ndim != 2]:
                raise PlanError(f"{bad[0]}: kept must be a list of rows, one per group")
            counts = content["parameters_before"], content["parameters_after"]
            return cls(kept, content["widths"], *counts, content.get("reason", ""))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"this is not a plan ({error!r}); give the text that SparsityPlan.to_json wrote") from error


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


def _checked(name: str, positions: Tensor, pairs: Mapping[str, CoupledPair]) -> Tensor:
    if name not in pairs:
        raise PlanError(f"{name}: the model has no such pair; it has {', '.join(list(pairs)[:6])}, ...")
    pair = pairs[name]
    if not isinstance(positions, Tensor):
        positions = torch.as_tensor(positions, device="cpu")
    if positions.dtype != torch.int64 or positions.ndim != 2 or positions.shape[0] != pair.groups:
        shape = f"{positions.dtype} {tuple(positions.shape)}"
        raise PlanError(f"{name}: kept is {shape}; it must be int64 ({pair.groups} groups, kept positions)")
    positions = positions.detach().cpu().clone()
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
