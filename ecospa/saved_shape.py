"""The shape that a checkpoint records, and a dense model cut to it before the saved weights are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ecospa.families import coupled_pairs
from ecospa.manifest import CONFIG, MANIFEST, CheckpointError, read_json, read_manifest
from ecospa.pairs import PairKind
from ecospa.plan import PlanError
from ecospa.shape import first_units_plan
from ecospa.surgery import add_biases, apply_plan, keep_heads, shape_of


@dataclass(frozen=True)
class Shape:
    """Widths and heads that were cut from a model.

    Attributes:
        widths: width per pair.
        heads: key/value heads per attention module; one that is not named has them all.
        biases: projections that were given a bias which the architecture does not have.
    """

    widths: Mapping[str, int]
    heads: Mapping[str, int] = field(default_factory=dict)
    biases: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The mapping that a manifest holds."""
        return {"widths": dict(self.widths), "heads": dict(self.heads), "biases": list(self.biases)}


def checkpoint_shape(folder: Path) -> Shape:
    """The shape of a checkpoint; empty for a dense one that knows nothing of ecospa.

    Raises:
        CheckpointError: it is malformed.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        return recorded_shape(manifest.shape, folder / MANIFEST)
    return recorded_shape(read_json(folder / CONFIG).get("ecospa", {"widths": {}}), folder / CONFIG)


def recorded_shape(recorded: Any, source: Path) -> Shape:
    """The shape that a mapping of a manifest or a configuration records.

    Args:
        recorded: "widths", and where there are any "heads" and "biases".
        source: the file, for the message.

    Raises:
        CheckpointError: it is malformed.
    """
    recorded = recorded if isinstance(recorded, dict) else {}
    heads, biases = recorded.get("heads", {}), recorded.get("biases", [])
    for counted in (recorded.get("widths"), heads):
        if not isinstance(counted, dict) or not all(type(count) is int and count > 0 for count in counted.values()):
            raise CheckpointError(f"{source}: widths and heads must map names to positive whole numbers")
    if not isinstance(biases, (list, tuple)) or not all(isinstance(name, str) for name in biases):
        raise CheckpointError(f"{source}: biases must be names of projections")
    return Shape(recorded["widths"], heads, tuple(biases))


def model_shape(model: nn.Module) -> Shape:
    """The shape that a model has now.

    Args:
        model: a model of a supported family, cut or whole.
    """
    now = shape_of(model)
    added = (getattr(getattr(model, "config", None), "ecospa", None) or {}).get("biases", [])
    return Shape(now["widths"], now["heads"], tuple(added))


def narrow_to(model: nn.Module, shape: Shape, source: Path) -> None:
    """Cut a model to a given shape, whatever indices; its weights are about to be replaced.

    Args:
        model: model of the same shape or a wider one.
        shape: what it becomes; pairs that are not named stay.
        source: the checkpoint, for the message.

    Raises:
        CheckpointError: the model has no such pair, or is narrower already.
    """
    every = coupled_pairs(model)
    pairs = {pair.name: pair for pair in every}
    if unknown := sorted(set(shape.widths) - set(pairs)):
        raise CheckpointError(
            f"{source}: it has the pair {unknown[0]}, this model does not; it belongs to another model"
        )
    for name, width in shape.widths.items():
        pair = pairs[name]
        if width > pair.width or width % pair.unit:
            raise CheckpointError(
                f"{source}: width {width} of {name} does not fit this model, whose width is {pair.width}"
            )
    try:
        present = {pair.module: pair.groups for pair in every if pair.kind is not PairKind.FFN}
        if fewer := {name: heads for name, heads in shape.heads.items() if heads != present.get(name)}:
            keep_heads(model, {name: torch.arange(heads, device="cpu") for name, heads in fewer.items()})
            every = coupled_pairs(model)
        apply_plan(model, first_units_plan(model, shape.widths, every), pairs=every)
        _make_biases(model, shape.biases)
    except (PlanError, AttributeError) as error:
        raise CheckpointError(f"{source}: {error}") from error


def _make_biases(model: nn.Module, names: tuple[str, ...]) -> None:
    bare = [name for name in names if model.get_submodule(name).bias is None]
    weights = {name: cast(Tensor, model.get_submodule(name).weight) for name in bare}
    # only llama's output projections lack one: a Linear, weight (out, in)
    add_biases(model, {name: weight.new_zeros(weight.shape[0]) for name, weight in weights.items()})
