"""CoLA: every projection of the blocks is a bottleneck of two thin matrices with SiLU between them.

Source: Liu et al. (arXiv 2502.10940), section 3; initial values from the authors' code.
Equations: W x + b becomes B silu(A x) + b, A (r, in), B (out, r), from the first step on.
    entries of A and B from N(0, 1 / sqrt(r (out + in))), so that those of B A have the variance 1 / (out + in)
Faithful: projections of attention and FFN alike; the FFN keeps its own nonlinearity; r a quarter of the smaller side,
the paper's 128 of 512, 256 of 1024 and 512 of 2048 (its 130M model has a third); embeddings, norms and head are whole.
Changed: with a target the ranks follow from it, as in `low_rank`. Biases begin as the dense model's. A model whose
residual outputs start smaller (baselines/initialization.py) has B of these scaled by the same factor.
Deviation: CoLA-M, which keeps only the bottleneck's activations and computes the others again, is not here.
Fewer weights, gradients, moments and FLOPs, from the first step to the last; no dense model comes out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.initialization import residual_factors
from baselines.low_rank import LowRank
from baselines.low_rank_linear import LowRankLinear, put_in_place


class BottleneckLinear(LowRankLinear):
    """y = B silu(A x) + b in place of a Linear or Conv1D: x (..., in), y (..., out)."""

    def forward(self, states: Tensor) -> Tensor:
        """B silu(A x) + b."""
        outputs: Tensor = self.outer(nn.functional.silu(self.inner(states)))
        return outputs


class CoLA(LowRank):
    """Trains two factors with SiLU between them instead of every projection."""

    name: ClassVar[str] = "cola"
    title = "CoLA"
    removes = "structures"
    group = "memory-efficient training"
    layer: ClassVar[type[LowRankLinear]] = BottleneckLinear

    @torch.no_grad()
    def replace(self, model: nn.Module, ranks: Mapping[str, int]) -> None:
        """Put fresh bottlenecks in the place of projections, in place; the seed decides their values."""
        factors = residual_factors(model)
        generator = torch.Generator("cpu").manual_seed(self.budget.seed)
        for name, rank in ranks.items():
            new = BottleneckLinear.like(model.get_submodule(name), rank)
            deviation = (rank * (new.outer.out_features + new.inner.in_features)) ** -0.25
            for part, scale in ((new.inner, 1.0), (new.outer, factors.get(f"{name}.weight", 1.0))):
                part.weight.copy_(torch.randn(part.weight.shape, generator=generator) * deviation * scale)
            put_in_place(model, name, new)
