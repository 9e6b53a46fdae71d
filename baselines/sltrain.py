"""SLTrain: every projection of the blocks is a product of two thin matrices plus a sparse one of random support.

Source: Han et al. (arXiv 2406.02214), algorithm 1; scale and initial values from the authors' code.
Equations: W = (alpha / r) B A + S, A (r, in), B (out, r); S has 3 % of the entries, at places that are drawn once,
uniformly, and never change; A, B and the values of S train from the first step on.
    A and the values of S from U(-1 / sqrt(in), 1 / sqrt(in)), B = 0
Faithful: projections of attention and FFN alike; r a quarter of the smaller side, as for `low_rank`; embeddings, norms
and head are whole; AdamW for all.
Changed: alpha / r is 0.25 at every rank, that of the authors' 60M model (32 of 128; theirs gets smaller with the
model). With a target the ranks follow from it; what no rank makes smaller stays whole. Biases begin as the dense
model's. A model whose residual outputs start smaller (baselines/initialization.py) has those of S scaled alike.
Simplified: W is composed for the forward pass and kept for the backward one, where the authors' kernel composes it
again: weights, gradients and moments are as few as theirs, activations are not. The places of S, 64-bit numbers as
theirs, count as no parameters.
Fewer weights, gradients and moments from the first step to the last, at the FLOPs of the dense model and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.initialization import residual_factors
from baselines.low_rank import LowRank
from baselines.low_rank_linear import LowRankLinear, put_in_place

SPARSE_SHARE = 0.03
SCALE = 0.25
"""The factor alpha / r of the product."""


class SparsePlusLowRankLinear(LowRankLinear):
    """y = (SCALE B A + S) x + b in place of a Linear or Conv1D: x (..., in), y (..., out).

    Attributes:
        values: the non-zero entries of S, (entries).
        places: where they are in the flattened (out, in), (entries), ascending.
    """

    sparse_share: ClassVar[float] = SPARSE_SHARE
    places: Tensor

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool, **place: Any) -> None:
        super().__init__(inputs, outputs, rank, bias, **place)
        entries = int(SPARSE_SHARE * inputs * outputs)
        self.values = nn.Parameter(torch.empty(entries, **place))
        self.register_buffer("places", torch.zeros(entries, dtype=torch.int64, device=place.get("device")))

    @property
    def weight(self) -> Tensor:
        """SCALE B A + S, (out, in)."""
        product = SCALE * (self.outer.weight @ self.inner.weight)
        values = self.values.to(product.dtype)  # autocast makes the product narrower
        return product.flatten().index_add(0, self.places, values).view_as(product)

    def forward(self, states: Tensor) -> Tensor:
        """(SCALE B A + S) x + b."""
        return nn.functional.linear(states, self.weight, self.outer.bias)


class SLTrain(LowRank):
    """Trains two factors and the values of a sparse matrix of random support instead of every projection."""

    name: ClassVar[str] = "sltrain"
    title = "SLTrain"
    removes = "structures"
    group = "memory-efficient training"
    layer: ClassVar[type[LowRankLinear]] = SparsePlusLowRankLinear

    @torch.no_grad()
    def replace(self, model: nn.Module, ranks: Mapping[str, int]) -> None:
        """Put fresh layers in the place of projections, in place; the seed decides their values and places."""
        factors = residual_factors(model)
        generator = torch.Generator("cpu").manual_seed(self.budget.seed)
        for name, rank in ranks.items():
            new = SparsePlusLowRankLinear.like(model.get_submodule(name), rank)
            inputs, outputs = new.inner.in_features, new.outer.out_features
            new.inner.weight.copy_(_uniform(new.inner.weight, inputs, generator))
            new.outer.weight.zero_()
            new.values.copy_(_uniform(new.values, inputs, generator) * factors.get(f"{name}.weight", 1.0))
            drawn = torch.randperm(inputs * outputs, generator=generator)[: len(new.places)]
            new.places.copy_(drawn.sort().values)
            put_in_place(model, name, new)


def _uniform(like: Tensor, inputs: int, generator: torch.Generator) -> Tensor:
    """Numbers in [-1 / sqrt(in), 1 / sqrt(in)) of a tensor's shape."""
    return (2 * torch.rand(like.shape, generator=generator) - 1) * inputs**-0.5
