"""Coupled pairs: which positions of which weights meet in one inner index (paper: the coupled weight matrices).

W_Q and W_K touch the rest of the network only through Q K^T, W_V and W_O only through V W_O, W_in and W_out only
through the hidden layer. An inner index is therefore a column of the one and a row of the other, and can be removed
from both without touching anything else. A pair only names positions; it holds no weight and changes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from jaxtyping import Int64
from torch import Tensor, nn


class UnsupportedModelError(ValueError):
    """A module that cannot be cut exactly; the message names it, says why and gives the way out."""


class PairKind(StrEnum):
    """Place of a pair's inner dimension: query/key width, value/output width, or hidden width."""

    QK = "qk"
    VO = "vo"
    FFN = "ffn"


@dataclass(frozen=True, eq=False)
class WeightAxis:
    """The positions along one axis of one parameter that carry a pair's shared indices.

    Attributes:
        parameter: dotted name of the parameter, as `model.named_parameters()` gives it; biases too.
        axis: axis of the parameter along which the indices lie.
        index: int64 (groups, width, repeats), `index[g, j, r]` is the position that carries shared index j of group
            g in its r-th copy (query heads that share a key/value head are copies).
    """

    parameter: str
    axis: int
    index: Int64[Tensor, "groups width repeats"]


@dataclass(frozen=True, eq=False)
class CoupledPair:
    """Weights that meet only through one inner dimension and lose the same indices of it together.

    Attributes:
        name: dotted name of the module and the kind, "model.layers.3.self_attn.qk".
        kind: PairKind of the pair.
        groups: key/value heads that choose their own indices; 1 for a feed-forward pair.
        width: current inner width of every group, in indices.
        unit: indices that leave together: 2 where rotary partners (j, j + width/2) are one, else 1.
        module: dotted name of the attention or feed-forward module.
        block: dotted name of the transformer block that holds the pair.
        left: axes whose index is an output of the first matrix (W_Q, W_V, W_in or gate and up; biases too).
        right: axes whose index is an input of the second matrix (W_O, W_out), or W_K with its bias.
    """

    name: str
    kind: PairKind
    groups: int
    width: int
    unit: int
    module: str
    block: str
    left: tuple[WeightAxis, ...]
    right: tuple[WeightAxis, ...]

    @property
    def axes(self) -> tuple[WeightAxis, ...]:
        """Every axis that is cut with the pair."""
        return self.left + self.right

    @property
    def units(self) -> int:
        """Number of removable units per group: width / unit."""
        return self.width // self.unit

    @property
    def query_heads(self) -> int:
        """Query heads of the attention that the pair is part of; 0 for a feed-forward pair."""
        return 0 if self.kind is PairKind.FFN else self.groups * max(axis.index.shape[2] for axis in self.axes)


def head_index(heads: int, width: int, offset: int = 0, repeats: int = 1) -> Int64[Tensor, "groups width repeats"]:
    """Positions of shared index j of every head in a projection whose heads lie one after the other.

    index[g, j, r] = offset + (g * repeats + r) * width + j

    Args:
        heads: groups that choose their own indices (key/value heads).
        width: indices per head.
        offset: first position of the projection in a fused weight.
        repeats: query heads that share one group.

    Returns:
        int64 (heads, width, repeats), on the CPU whatever the default device is.
    """
    head = torch.arange(heads * repeats, device="cpu").view(heads, 1, repeats)
    return offset + head * width + torch.arange(width, device="cpu").view(1, width, 1)


def unit_positions(pair: CoupledPair, kept_units: Int64[Tensor, "groups kept"]) -> Int64[Tensor, "groups positions"]:
    """Ascending positions within the width for units that stay: both partners of a rotary unit.

    Args:
        pair: the pair whose units are meant.
        kept_units: int64 (groups, kept), ascending unit numbers in [0, width / unit).

    Returns:
        int64 (groups, kept * unit), ascending.
    """
    return torch.cat([kept_units + part * pair.units for part in range(pair.unit)], dim=1)


def pair_matrices(pair: CoupledPair, parameters: dict[str, Tensor]) -> Iterator[tuple[str, WeightAxis]]:
    """The matrices of a pair, without biases, each with its side ("left" or "right")."""
    for side, axes in (("left", pair.left), ("right", pair.right)):
        for axis in axes:
            if parameters[axis.parameter].ndim > 1:
                yield side, axis


def narrowed_pairs(
    pairs: Iterable[CoupledPair], kept: Mapping[str, Int64[Tensor, "groups kept"]]
) -> tuple[CoupledPair, ...]:
    """The pairs of a model once a plan has cut it: what `coupled_pairs` finds then, without a look at the model.

    position after = position before - number of removed positions before it

    Args:
        pairs: all pairs of the model before the cut; pairs of one fused weight move together.
        kept: pair name -> int64 (groups, kept), ascending positions within the width; others stay whole.

    Returns:
        The pairs in the same order.
    """
    pairs = tuple(pairs)
    removed = {name: positions.sort().values for name, positions in _removed_positions(pairs, kept).items()}

    def moved(axis: WeightAxis, rows: Tensor | None) -> WeightAxis:
        gone = removed.get(axis.parameter)
        if gone is None:
            return axis
        index = (
            axis.index if rows is None else axis.index.gather(1, rows[:, :, None].expand(-1, -1, axis.index.shape[2]))
        )
        return replace(axis, index=index - torch.searchsorted(gone, index))

    after = []
    for pair in pairs:
        rows = kept.get(pair.name)
        if any(axis.parameter in removed for axis in pair.axes):
            left, right = (tuple(moved(axis, rows) for axis in side) for side in (pair.left, pair.right))
            pair = replace(pair, width=pair.width if rows is None else rows.shape[1], left=left, right=right)
        after.append(pair)
    return tuple(after)


def _removed_positions(pairs: Iterable[CoupledPair], kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Per parameter the positions along its axis that leave."""
    removed: dict[str, list[Tensor]] = {}
    for pair in pairs:
        if pair.name in kept:
            gone = torch.ones(pair.groups, pair.width, dtype=torch.bool, device="cpu")
            gone.scatter_(1, kept[pair.name], False)
            for axis in pair.axes:
                removed.setdefault(axis.parameter, []).append(axis.index[gone].flatten())
    return {name: torch.cat(parts) for name, parts in removed.items()}


def output_axes(
    name: str, projection: nn.Module, index: Int64[Tensor, "groups width repeats"]
) -> tuple[WeightAxis, ...]:
    """Output positions of a Linear, weight (out, in), or Conv1D, weight (in, out), and of its bias if it has one."""
    axis = 0 if isinstance(projection, nn.Linear) else 1
    weight = WeightAxis(f"{name}.weight", axis, index)
    return (weight,) if projection.bias is None else (weight, WeightAxis(f"{name}.bias", 0, index))


def input_axes(
    name: str, projection: nn.Module, index: Int64[Tensor, "groups width repeats"]
) -> tuple[WeightAxis, ...]:
    """Input positions of a Linear or Conv1D; its bias belongs to the outputs and stays."""
    return (WeightAxis(f"{name}.weight", 1 if isinstance(projection, nn.Linear) else 0, index),)
