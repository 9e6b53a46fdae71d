"""Projections that read the same input, as one matrix product: fewer calls for the same FLOPs (inference only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ecospa.class_swap import Swapped
from ecospa.pairs import UnsupportedModelError

MergeKind = Literal["qkv", "gate_up"]
MERGED = "merged"
"""Name of the merged projection within its module."""


@dataclass(frozen=True)
class Mergeable:
    """Projections of one module that read the same input.

    Attributes:
        kind: "qkv" for queries, keys and values, "gate_up" for the two of a gated feed-forward layer.
        module: dotted name of the module within the block.
        projections: their names within the module, in the order of their rows in the merged one.
        classes: names of the module's class whose forward is known.
        forward: takes the place of that class's forward; None for an attention, which has its family's.
    """

    kind: MergeKind
    module: str
    projections: tuple[str, ...]
    classes: tuple[str, ...]
    forward: type[Swapped] | None = None


class MergedLinear(nn.Linear):
    """Several projections as one, their weights one below the other; a state dict holds them apart all the same.

    The projections themselves wait in `parts`, without weights, until they are split again.

    Args:
        names: of the projections within their module.
        parts: plain projections of one input, on one device and in one dtype, with biases or without.
        order: names of all children of their module, the order of its parameters.
        swapped: the module has got another class for the merge.

    Attributes:
        rows: outputs of every part.
    """

    def __init__(self, names: Sequence[str], parts: Sequence[nn.Linear], order: Sequence[str], swapped: bool) -> None:
        biased = parts[0].bias is not None
        rows = [part.out_features for part in parts]
        super().__init__(parts[0].in_features, sum(rows), bias=biased, device="meta")
        self.names, self.parts, self.order, self.rows = tuple(names), tuple(parts), tuple(order), rows
        self.swapped = swapped
        self.weight = _joined([part.weight for part in parts])
        if biased:
            self.bias = _joined([part.bias for part in parts])
        self.release()
        super().train(False)

    def fill(self, copy: bool) -> None:
        """Give the parts their weights, as copies or as views of the merged ones."""
        for name, merged in self.named_parameters(recurse=False):
            for part, value in zip(self.parts, merged.data.split_with_sizes(self.rows), strict=True):
                _point(getattr(part, name), value.clone() if copy else value)

    def release(self) -> None:
        """Take the weights from the parts, so that none is held twice."""
        for part in self.parts:
            for parameter in part.parameters():
                _point(parameter, parameter.data.new_empty(0))

    def train(self, mode: bool = True) -> Self:
        """Refuse training mode.

        Raises:
            UnsupportedModelError: for training mode; an optimizer holds the projections apart and would train nothing.
        """
        if mode:
            raise UnsupportedModelError(
                f"{', '.join(self.names)} are merged for inference and cannot be trained; "
                "call ecospa.split_projections(model) first"
            )
        super().train(False)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        module = prefix.removesuffix(f"{MERGED}.")
        for name, merged in self.named_parameters(recurse=False):
            values = (merged if keep_vars else merged.detach()).split_with_sizes(self.rows)
            for part, value in zip(self.names, values, strict=True):
                destination[f"{module}{part}.{name}"] = value


def project(module: nn.Module, states: Tensor, *names: str) -> tuple[Tensor, ...]:
    """The projections of an input, by one matrix product where they have been merged.

    Args:
        module: holds the projections.
        states: (batch, time, features).
        names: of the projections, in the order of the result.
    """
    merged: Any = module._modules.get(MERGED)
    if merged is None:
        return tuple(getattr(module, name)(states) for name in names)
    result: tuple[Tensor, ...] = merged(states).split(merged.rows, dim=-1)
    return result


def _joined(parameters: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.cat([parameter.data for parameter in parameters]), requires_grad=False)


def _point(parameter: Tensor, value: Tensor) -> None:
    # autograd caches a node with the old shape on the parameter; another dtype in between makes it forget
    parameter.data = value.new_empty(0, dtype=torch.float64 if parameter.dtype != torch.float64 else torch.float32)
    parameter.data = value
