"""Entries that a cut removed from a model, found by comparing the weights themselves, whoever cut them.

A check of a cut must not ask the one who made it. Both models have the same parameter names, values that stay are
untouched, and no two slices of a parameter are equal.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Removed = Mapping[str, tuple[int, Tensor]]
"""Parameter -> the axis that is shorter and the positions along it that are gone."""


def removed_entries(dense: nn.Module, cut: nn.Module) -> Removed:
    """Return the entries of `dense` that `cut` lacks.

    Raises:
        ValueError: a parameter is missing, shorter along several axes, or has slices that `dense` does not have.
    """
    remaining = dict(cut.named_parameters())
    removed = {}
    for name, parameter in dense.named_parameters():
        if name not in remaining:
            raise ValueError(f"{name} is missing after the cut")
        if remaining[name].shape != parameter.shape:
            removed[name] = _gone(name, parameter.detach(), remaining[name].detach())
    return removed


def zeroed(dense: nn.Module, removed: Removed) -> nn.Module:
    """A copy of the dense model with those entries set to zero."""
    model = copy.deepcopy(dense)
    held_at_zero(model, removed)
    return model


@torch.no_grad()
def held_at_zero(model: Any, removed: Removed) -> None:
    """Set entries, and their gradients, to zero in place."""
    for name, (axis, positions) in removed.items():
        parameter = model.get_parameter(name)
        parameter.index_fill_(axis, positions, 0.0)
        if parameter.grad is not None:
            parameter.grad.index_fill_(axis, positions, 0.0)


def _gone(name: str, dense: Tensor, cut: Tensor) -> tuple[int, Tensor]:
    axes = [axis for axis in range(dense.ndim) if cut.ndim == dense.ndim and cut.shape[axis] != dense.shape[axis]]
    if len(axes) != 1:
        raise ValueError(f"{name} has shape {tuple(cut.shape)} after the cut and had {tuple(dense.shape)}")
    (axis,) = axes
    places = {_key(part): position for position, part in enumerate(dense.unbind(axis))}
    stays = {places.get(_key(part)) for part in cut.unbind(axis)}
    if None in stays or len(stays) != cut.shape[axis]:
        raise ValueError(f"{name} holds values after the cut that it did not have before")
    gone = [position for position in range(dense.shape[axis]) if position not in stays]
    return axis, torch.tensor(gone)


def _key(part: Tensor) -> bytes:
    return part.contiguous().numpy().tobytes()
