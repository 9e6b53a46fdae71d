"""Positions of heads and FFN channels in a model's parameters, for methods that score, freeze or revive them.

`baselines.structures` says how many there are, what they cost, and cuts them; this says which entries they consist of.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.method import check_reachable
from baselines.structures import most_removable
from ecospa import PairKind, coupled_pairs
from ecospa.accounting import parameters
from ecospa.config import TargetScope


@dataclass(frozen=True, eq=False)
class StructureAxis:
    """Positions of one parameter that belong to each head or channel.

    Attributes:
        parameter: dotted name.
        axis: axis of the parameter along which the positions lie.
        positions: int64 (structures, positions), on the device of the parameter.
        matrix: whether the parameter is a matrix; else it is a bias.
        output: whether this is the matrix that reads the structures: W_O of an attention, W_down of an FFN.
    """

    parameter: str
    axis: int
    positions: Tensor
    matrix: bool
    output: bool


def structure_axes(model: nn.Module) -> dict[str, list[StructureAxis]]:
    """All that a head, with its query heads, or a channel consists of.

    Returns:
        Attention module or FFN pair, as in `structures` -> its parameters.
    """
    by_structure: dict[str, list[StructureAxis]] = {}
    for pair in coupled_pairs(model):
        ffn = pair.kind is PairKind.FFN
        axes = by_structure.setdefault(pair.name if ffn else pair.module, [])
        for axis in pair.axes:
            parameter = model.get_parameter(axis.parameter)
            positions = (axis.index.view(-1, 1) if ffn else axis.index.flatten(1)).to(parameter.device)
            output = pair.kind is not PairKind.QK and axis in pair.right
            axes.append(StructureAxis(axis.parameter, axis.axis, positions, parameter.ndim > 1, output))
    return by_structure


def along(value: Tensor, axis: int) -> Tensor:
    """Sum of a matrix over its other axis: float64 (entries of the axis,)."""
    return value.sum(1 - axis, dtype=torch.float64)


def per_structure(values: Tensor, part: StructureAxis) -> Tensor:
    """Sum of values along the axis of a parameter over the positions of every structure: (structures,)."""
    return values[part.positions.to(values.device)].sum(1)


def removable(model: nn.Module, target_size: float, scope: TargetScope) -> int:
    """Parameters that a model has to lose to come down to its target.

    Args:
        model: the dense model.
        target_size: share of the parameters in the scope that is left.
        scope: "blocks" or "parameters".

    Raises:
        ConfigError: they are more than go when every layer keeps one head and one channel.
    """
    full = parameters(model, scope)
    check_reachable(target_size, scope, full, full - most_removable(model))
    return full - round(target_size * full)
