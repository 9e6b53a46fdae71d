"""Estimators of the importance of pairs at another scale than empirical Fisher (`EcoSpaConfig.importance_scale`).

Deviation: all of them. The Fisher information of W falls to 1 / s^2 when W grows to s W and the next matrix takes the
factor back, and matrices of one kind have gradients of one size, so the paper's ranking may be one of scales and kinds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from ecospa.estimator import CoupledEstimator, MatrixKey
from ecospa.importance import divided_by_kind, mean_square, square_sums
from ecospa.pairs import CoupledPair


class FirstOrderTaylor(CoupledEstimator):
    """I(W) = mean over steps of mean_ij |W_ij dL/dW_ij|: what the loss changes by, to first order, entry by entry.

    Source: Molchanov et al., arXiv 1611.06440, of weights instead of activations.
    """

    def step_sums(self, weights: list[Tensor], gradients: list[Tensor]) -> Float64[Tensor, " matrices"]:
        """sum_ij |W_ij dL/dW_ij| of every matrix."""
        products = torch._foreach_mul(gradients, weights)
        return torch.stack(torch._foreach_norm(products, 1)).to(torch.float64)


class WeightNormFisher(CoupledEstimator):
    """I(W) * mean_ij W_ij^2 with the weights of the event, which W -> s W, dL/dW -> dL/dW / s leaves as it is."""

    @torch.no_grad()
    def matrix_importances(self) -> dict[MatrixKey, float]:
        """Fisher information of every matrix times its mean squared weight, a squared loss."""
        matrices = list(self._matrices.values())
        squares = square_sums([matrix.part(matrix.parameter).detach().double() for matrix in matrices]).tolist()
        means = [mean_square(total, matrix.entries) for total, matrix in zip(squares, matrices, strict=True)]
        fisher = super().matrix_importances()
        return {key: value * mean for (key, value), mean in zip(fisher.items(), means, strict=True)}


class FisherByKind(CoupledEstimator):
    """I(pair) / mean of I over the pairs of its kind (QK, VO, FFN), which makes all kinds equal on average."""

    def rebind(self, pairs: Sequence[CoupledPair]) -> None:
        """Take over the pairs as they are after a cut, and start a new window."""
        super().rebind(pairs)
        self._kinds = {pair.name: pair.kind.value for pair in pairs}

    def importances(self) -> dict[str, float]:
        """Importance of every pair over the mean of its kind: a share, 1 on average."""
        return divided_by_kind(super().importances(), self._kinds)
