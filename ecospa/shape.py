"""Shape of a model: the inner width of every coupled pair, apart from any weights (no part of the paper).

What EcoSpa leaves behind is weights and widths. A fresh model of the same widths tells how much of the result is the
widths; this is what such a model is made from, found once and kept as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from ecospa.dense import dense_shape
from ecospa.families import coupled_pairs
from ecospa.pairs import CoupledPair, unit_positions
from ecospa.plan import SparsityPlan
from ecospa.plan_text import LARGEST, fields_of, shown

SHAPE_VERSION = 1
_FIELDS = (
    *("version", "widths", "dense_widths", "parameters"),
    *("rule", "settings", "seeds", "probe_steps", "probe_flops"),
)


class ShapeError(ValueError):
    """A shape that is malformed or belongs to another model; the message names the field or pair and the way out."""


@dataclass(frozen=True)
class Shape:
    """Inner widths of all coupled pairs of a model, and the origin of that choice.

    Attributes:
        widths: width of every pair in indices, per key/value head for an attention pair, by name of pair.
        dense_widths: widths of the dense model that it belongs to, of the same pairs.
        parameters: all parameters of a model of this shape.
        rule: name of what chose the widths: "probe", a rule of `ecospa.shape_rules`, or "given".
        settings: its arguments, as plain JSON: of a probe the fields of its EcoSpaConfig.
        seeds: of the probes.
        probe_steps: optimizer steps of all probes together; 0 where nothing was trained.
        probe_flops: FLOPs of these steps (ecospa.accounting), None where they could not be counted.

    Raises:
        ShapeError: a field is of another type or contradicts another one. `plan` checks it against a model.
    """

    widths: Mapping[str, int]
    dense_widths: Mapping[str, int]
    parameters: int
    rule: str = "given"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    probe_steps: int = 0
    probe_flops: int | None = 0

    def __post_init__(self) -> None:
        for name in ("widths", "dense_widths"):
            _check_widths(name, getattr(self, name))
            object.__setattr__(self, name, dict(getattr(self, name)))  # the caller's own may change
        if unpaired := sorted(set(self.widths) ^ set(self.dense_widths)):
            raise ShapeError(
                f"{shown(unpaired[0])} has no entry in both widths and dense_widths; give both of each pair"
            )
        for name, width in self.widths.items():
            if width > self.dense_widths[name]:
                raise ShapeError(f"widths[{shown(name)!r}] is {width}; it must lie in [1, {self.dense_widths[name]}]")
        if not isinstance(self.rule, str) or not isinstance(self.settings, Mapping):
            raise ShapeError(f"rule is {shown(self.rule)} and settings {shown(self.settings)}; give text and a mapping")
        object.__setattr__(self, "settings", dict(self.settings))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        counted = [("parameters", self.parameters), ("probe_steps", self.probe_steps)]
        counted += [("seeds", seed) for seed in self.seeds]
        for name, value in counted if self.probe_flops is None else (*counted, ("probe_flops", self.probe_flops)):
            if type(value) is not int or value < 0:
                raise ShapeError(f"{name} is {shown(value)}; it must be a whole number from 0 on")

    @classmethod
    def build(cls, model: nn.Module, widths: Mapping[str, int], **origin: Any) -> Shape:
        """A shape for a model, checked against it.

        Args:
            model: dense model of a supported family, on any device, the meta device too.
            widths: width in indices by name of pair; pairs that are not named keep theirs.
            **origin: rule, settings, seeds, probe_steps and probe_flops, where there is something to say.

        Raises:
            ShapeError: an unknown pair, a width that it cannot have, or a model that has been cut.
            UnsupportedModelError: the model cannot be cut.
        """
        pairs = _dense_pairs(model)
        _check_widths("widths", widths)
        if unknown := sorted(set(widths) - {pair.name for pair in pairs}):
            raise ShapeError(_no_such_pair(unknown[0], pairs))
        found = {pair.name: widths.get(pair.name, pair.width) for pair in pairs}
        parameters = first_units_plan(model, found, pairs).parameters_after
        return cls(found, {pair.name: pair.width for pair in pairs}, parameters, **origin)

    def plan(self, model: nn.Module) -> SparsityPlan:
        """The plan that narrows a dense model to this shape, keeping the first units of every pair.

        Args:
            model: dense model with the pairs, widths and parameters that the shape was made for.

        Raises:
            ShapeError: it is another model, or has been cut.
            UnsupportedModelError: the model cannot be cut.
        """
        pairs = _dense_pairs(model)
        now = {pair.name: pair.width for pair in pairs}
        for name in sorted(set(now) | set(self.dense_widths)):
            if now.get(name) != self.dense_widths.get(name):
                expected, here = (
                    f"width {widths[name]}" if name in widths else "no such pair" for widths in (self.dense_widths, now)
                )
                raise ShapeError(
                    f"{shown(name)}: the shape was made for {expected}, this model has {here}; it belongs to another "
                    "model, find one for this model"
                )
        plan = first_units_plan(model, self.widths, pairs)
        if plan.parameters_after != self.parameters:
            raise ShapeError(
                f"parameters is {self.parameters}, and this model would have {plan.parameters_after}: its pairs are "
                "alike and the rest differs; make one for it with Shape.build(model, shape.widths)"
            )
        return plan

    def to_json(self) -> str:
        """The shape as JSON text.

        Raises:
            ShapeError: `settings` holds something that JSON cannot hold.
        """
        try:
            return json.dumps({"version": SHAPE_VERSION, **asdict(self)}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ShapeError(f"settings is {shown(self.settings)}, which is no JSON ({error})") from error

    @classmethod
    def from_json(cls, text: str) -> Shape:
        """The shape that `to_json` wrote.

        Raises:
            ShapeError: the text is no JSON, of another version, or has fields that are missing, unknown or malformed.
        """
        try:
            content = fields_of(text, _FIELDS, ())
        except ValueError as error:
            raise ShapeError(f"this is not a shape ({error}); give the text that Shape.to_json wrote") from error
        version = content.pop("version")
        if type(version) is not int or version != SHAPE_VERSION:
            raise ShapeError(f"version is {shown(version)}; this release reads {SHAPE_VERSION}")
        if not isinstance(content["seeds"], list):
            raise ShapeError(f"seeds is {shown(content['seeds'])}; it must be a list of whole numbers")
        return cls(**content)


def first_units_plan(
    model: nn.Module, widths: Mapping[str, int], pairs: Sequence[CoupledPair] | None = None
) -> SparsityPlan:
    """The plan that brings every pair to a width by keeping its first units.

    Args:
        model: a model of which only the shapes matter, such as one that was never trained.
        widths: new width in indices of every pair that shall change.
        pairs: those of the model, where the caller has them.

    Raises:
        ShapeError: a pair cannot have that width.
    """
    kept, pairs = {}, coupled_pairs(model) if pairs is None else pairs
    for pair in pairs:
        width = widths.get(pair.name, pair.width)
        if not pair.unit <= width <= pair.width or width % pair.unit:
            raise ShapeError(
                f"widths[{pair.name!r}] is {width}; it must be a multiple of {pair.unit} in [{pair.unit}, {pair.width}]"
            )
        units = torch.arange(width // pair.unit, device="cpu").repeat(pair.groups, 1)
        kept[pair.name] = unit_positions(pair, units)
    return SparsityPlan.build(model, kept, pairs=pairs)


def _dense_pairs(model: nn.Module) -> tuple[CoupledPair, ...]:
    """The pairs of a model that nobody has cut."""
    pairs = coupled_pairs(model)
    dense = dense_shape(model, pairs)
    for pair in pairs:
        if (pair.groups, pair.width) != dense[pair.name]:
            raise ShapeError(
                f"{pair.name}: the model has been cut: (heads, width) was {dense[pair.name]} and is "
                f"{(pair.groups, pair.width)}; give a freshly built dense model, another one at every call of build()"
            )
    return pairs


def _check_widths(field_name: str, widths: Any) -> None:
    if not isinstance(widths, Mapping) or not all(isinstance(name, str) for name in widths):
        raise ShapeError(f"{field_name} is {shown(widths)}; it must be a mapping from names of pairs to widths")
    for name, width in widths.items():
        if type(width) is not int or not 1 <= width <= LARGEST:
            raise ShapeError(f"{field_name}[{shown(name)!r}] is {shown(width)}; it must be a whole number from 1 on")


def _no_such_pair(name: str, pairs: Sequence[CoupledPair]) -> str:
    known = ", ".join(pair.name for pair in pairs[:6])
    return f"{shown(name)}: the model has no such pair; it has {known}, ..."
