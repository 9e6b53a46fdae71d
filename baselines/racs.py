"""RACS: the gradient over the square root of its squares' best approximation by one number per row and per column.

Source: Gong et al. (arXiv 2502.07752), proposition 3 and algorithm 1. The library pytorch-optimizer (4.1) has it, too,
but takes the plain row and column means, whose product is no square of a gradient: its steps grow as gradients shrink.
Equations: G is the gradient of a weight; from q = 1, five times
    s = (G o G)^T q / |q|^2,  q = (G o G) s / |s|^2            (least squares of q s^T to G o G)
    s, q <- 0.9 of their averages + 0.1 of these;  U = Diag(q)^-1/2 G Diag(s)^-1/2
    W <- W - lr scale U,  |U| at most 1.01 times that of the step before
Faithful: all of this; no moments at all, one number per row and column.
Changed: the averages begin with the first s and q, because zeros would make the first step ten times as long. Rate and
scale enter as their product, 0.02 and 0.05 in the paper: the scale is 1, and the rate that of AdamW, which trains all
that is no matrix of a block.
The budget's target is not looked at.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.method import TrainingMethod
from baselines.split_optimizer import MatrixOptimizer, SplitOptimizer, limited, with_adamw

DECAY = 0.9
ITERATIONS = 5


class Racs(TrainingMethod):
    """Scales the rows and columns of every gradient, and keeps no moments."""

    name: ClassVar[str] = "racs"
    title = "RACS"
    removes = "nothing"
    group = "memory-efficient training"
    reads_gradients: ClassVar[bool] = False

    def build_optimizer(self, model: nn.Module) -> SplitOptimizer:
        """RACS for the matrices of the blocks, AdamW for the rest."""
        return with_adamw(model, self.budget, lambda groups: RacsOptimizer(groups, self.budget))


class RacsOptimizer(MatrixOptimizer):
    """The equations of this file."""

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """U, (out, in)."""
        rows, columns = row_and_column_scales(gradient)
        if "rows" in state:
            state["rows"].lerp_(rows, 1 - DECAY)
            state["columns"].lerp_(columns, 1 - DECAY)
        else:
            state["rows"], state["columns"] = rows, columns
        scale = (state["rows"].sqrt()[:, None] * state["columns"].sqrt()).clamp(min=_tiny(gradient))
        return limited(gradient / scale, state)


def row_and_column_scales(gradient: Tensor, iterations: int = ITERATIONS) -> tuple[Tensor, Tensor]:
    """Q and s with q s^T closest to the squares of a gradient, by alternating least squares from q = 1.

    Args:
        gradient: G, (out, in).
        iterations: of both.

    Returns:
        q (out) and s (in), non-negative; zeros for a gradient of zeros.

    Source: arXiv 2502.07752, proposition 3.
    """
    squares = gradient.square()
    peak = squares.max().clamp(min=_tiny(gradient))
    squares = squares / peak  # squares of squares would leave the range of float32
    rows = torch.ones_like(gradient[:, 0])
    for _ in range(iterations):
        columns = squares.T @ rows / rows.square().sum().clamp(min=_tiny(gradient))
        rows = squares @ columns / columns.square().sum().clamp(min=_tiny(gradient))
    return rows, columns * peak


def _tiny(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny
