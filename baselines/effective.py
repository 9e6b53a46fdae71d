"""Effective parameters: what is left of a masked model when everything that can have no effect is set aside.

A mask may leave weights that nothing reaches: the rows that feed a channel which no weight reads any more, the columns
that read a channel which is always zero. They are stored and non-zero, yet a model without them computes the same.

Source: Vysogorets and Kempe, "Connectivity matters" (arXiv 2107.02306): direct against effective sparsity.
Equation: an inner index j of a pair W1 W2 is dead when every entry of W1[:, j], its bias included, or every entry of
W2[j, :] is removed; effective = stored - |removed or at a dead index|.
Simplified: dead coordinates of the residual stream are not looked for, nor pairs with a query/key norm, whose
denominator every index enters; so the count is an upper bound. Activations are taken to map 0 to 0, as GELU, SiLU and
ReLU do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ecospa import CoupledPair, PairKind, coupled_pairs
from ecospa.accounting import parameters
from ecospa.pairs import WeightAxis


def effective_parameters(model: nn.Module, removed: Mapping[str, Tensor]) -> tuple[int, int]:
    """Parameters that can have an effect: of the whole model, and of its blocks.

    Args:
        model: the model with its stored shapes.
        removed: parameter name -> bool of its shape, True where an entry is zero for good; of parameters of blocks.

    Returns:
        Two counts; both are what is stored where nothing is masked.
    """
    gone = sum(int(mask.sum()) for mask in useless_entries(model, removed).values())
    return parameters(model) - gone, parameters(model, "blocks") - gone


def useless_entries(model: nn.Module, removed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries without effect: those removed, and all that stand at dead indices; parameter name -> bool mask."""
    useless = {name: mask.cpu().clone() for name, mask in removed.items()}
    for pair in coupled_pairs(model) if removed else ():
        dead = dead_indices(model, pair, removed)
        for axis in pair.axes if bool(dead.any()) else ():
            shape = model.get_parameter(axis.parameter).shape
            mask = useless.setdefault(axis.parameter, torch.zeros(shape, dtype=torch.bool, device="cpu"))
            mask.index_fill_(axis.axis, axis.index[dead].flatten(), True)
    return useless


def dead_indices(model: nn.Module, pair: CoupledPair, removed: Mapping[str, Tensor]) -> Tensor:
    """Return the inner indices of a pair that carry nothing: bool (groups, width); rotary partners die together.

    A side is silent where a whole projection is removed: of a gated FFN gate or up is enough, they are multiplied.
    """
    dead = torch.zeros(pair.groups, pair.width, dtype=torch.bool, device="cpu")
    norm = getattr(model.get_submodule(pair.module), "q_norm", None) if pair.kind is PairKind.QK else None
    if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
        return dead
    for side in (_projections(pair.left), _projections(pair.right)):
        silent = torch.stack([torch.stack([_gone(axis, removed) for axis in axes]).all(0) for axes in side]).any(0)
        units = silent.view(pair.groups, pair.unit, -1)
        dead |= units.all(1, keepdim=True).expand_as(units).reshape_as(dead)
    return dead


def _projections(side: tuple[WeightAxis, ...]) -> list[list[WeightAxis]]:
    """Weight and bias of every module of a side."""
    groups: dict[str, list[WeightAxis]] = {}
    for axis in side:
        groups.setdefault(axis.parameter.rpartition(".")[0], []).append(axis)
    return list(groups.values())


def _gone(axis: WeightAxis, removed: Mapping[str, Tensor]) -> Tensor:
    """Mark indices at which every entry of a parameter is removed: bool (groups, width)."""
    if axis.parameter not in removed:
        return torch.zeros(axis.index.shape[:2], dtype=torch.bool, device="cpu")
    mask = removed[axis.parameter].cpu().movedim(axis.axis, 0)
    return mask.reshape(len(mask), -1).all(1)[axis.index].all(-1)
