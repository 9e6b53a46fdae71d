"""The dense model at widths that matrix units like: what a speed-up that comes from alignment alone amounts to.

LLaMA's feed-forward rule gives GaLore's 1B shape 5461 hidden units, an odd number. Matrix units read tiles of 64 and
more, so the dense layer runs far below its rate; a shrunk one, whose widths are multiples, runs at it. A ratio of times
then mixes two effects, and one of them needs no removal. This control takes it away: the same function, a little more
arithmetic, aligned.

Equations: W_in (width, d) gets rows of zeros, W_out (d, width) columns of zeros, gate and bias likewise, up to
width' = m ceil(width / m). An activation with f(0) = 0, which all of the families have, leaves the new units at zero,
and their gradients are zero as well: the padded model trains as the dense one does, step by step.
Source: padding for tensor cores, as in NVIDIA's guide to matrix multiplication and in Megatron's vocabulary padding.
Deviation: heads are left as they are. Attention kernels pad within themselves, and every head measured here is 64 wide.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.functional import pad

from baselines.cut_shapes import load_shapes, save_shapes
from baselines.method import TrainingMethod, size_entry
from ecospa import coupled_pairs
from ecospa.pairs import PairKind


class DenseAligned(TrainingMethod):
    """Trains the dense model with feed-forward widths padded by zeros to the width multiple."""

    name: ClassVar[str] = "dense_aligned"
    title = "dense, aligned"
    removes = "nothing"
    group = "dense control"
    reads_gradients: ClassVar[bool] = False

    def prepare(self, model: nn.Module, calibration: Any = None) -> None:
        """Pad the model in place.

        Raises:
            UnsupportedModelError: no family knows the model's blocks.
        """
        self.accept(model, calibration)
        pad_feed_forward(model, self.budget.rule.ffn)
        self.history[:] = [size_entry(0, model)]

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write weights and shapes."""
        save_shapes(model, folder)

    def load(self, folder: Path, dense: nn.Module) -> nn.Module:
        """Read what `save` wrote into `dense`, which is padded first.

        Raises:
            CheckpointError: a file is damaged or missing, or it belongs to another model.
        """
        pad_feed_forward(dense, self.budget.rule.ffn)
        return load_shapes(folder, dense)


@torch.no_grad()
def pad_feed_forward(model: nn.Module, multiple: int) -> dict[str, int]:
    """Pad every feed-forward layer with hidden units of zero weight, in place; parameters are new ones.

    Args:
        model: of a supported family, on any device, the meta device too; call it before an optimizer is built.
        multiple: hidden widths become multiples of this.

    Returns:
        Name of the pair -> units added, of the layers that were not aligned.

    Raises:
        UnsupportedModelError: no family knows the model's blocks.
    """
    added = {}
    for pair in coupled_pairs(model):
        units = -pair.width % multiple
        if pair.kind is not PairKind.FFN or not units:
            continue
        for axis in pair.axes:
            parent, _, name = axis.parameter.rpartition(".")
            _pad(model.get_submodule(parent), name, axis.axis, units)
        added[pair.name] = units
    return added


def _pad(module: Any, name: str, axis: int, units: int) -> None:
    old: nn.Parameter = getattr(module, name)
    beyond = [0, 0] * (old.ndim - 1 - axis) + [0, units]  # `pad` counts axes from the last one
    setattr(module, name, nn.Parameter(pad(old, beyond), old.requires_grad))
    if old.ndim == 2:
        counts = ("out_features", "in_features") if isinstance(module, nn.Linear) else ("nx", "nf")
        setattr(module, counts[axis], old.shape[axis] + units)
