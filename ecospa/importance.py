"""How much a pair and an index of it matter: pure functions of gradients and weights (paper, Section 3 and Appendix A).

Pairs are ranked by empirical Fisher information, indices inside a pair by the Frobenius norm of the rank-one term that
they contribute to the product of the two matrices, as a truncated SVD drops its smallest singular values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def empirical_fisher(grad: Float[Tensor, ...]) -> Float[Tensor, " "]:
    """Empirical Fisher information of a matrix: the mean of its squared gradient entries.

    I(W) = (1 / |W|) * sum_ij (dL/dW_ij)^2

    Args:
        grad: gradient of the loss, any shape, in loss per weight.

    Returns:
        Scalar, (loss per weight) squared, in float64.

    Source: paper, coupled estimation (Equation 6 of the earlier version).
    Deviation: normalised per entry, so that pairs of different size compare; the paper's normalisation is not known.
    """
    return grad.to(torch.float64).square().mean()


def pair_importance(grads: Sequence[Float[Tensor, ...]]) -> Float[Tensor, " "]:
    """Importance of a pair: the mean over its matrices of their empirical Fisher information.

    I(pair) = mean over W in pair of I(W)

    Args:
        grads: gradients of the pair's matrices: two, or three for a gated feed-forward pair.

    Returns:
        Scalar in float64, (loss per weight) squared.

    Raises:
        ValueError: no gradient is given.

    Source: paper, coupled estimation.
    """
    if len(grads) == 0:
        raise ValueError("grads is empty; a pair has at least two matrices, give the gradient of each")
    return torch.stack([empirical_fisher(grad) for grad in grads]).mean()


def index_scores(left: Float[Tensor, "rows dim"], right: Float[Tensor, "dim cols"]) -> Float[Tensor, " dim"]:
    """Score of every inner index: the Frobenius norm of what its removal takes from the product.

    v_j = ||left[:, j]||_2 * ||right[j, :]||_2 = || left[:, j] right[j, :] ||_F

    Args:
        left: (rows, dim), W_1 with the inner index as its column.
        right: (dim, cols), W_2 with the inner index as its row.

    Returns:
        (dim,), in the unit of the product.

    Source: paper, coupled sparsification and Appendix A.
    """
    scores: Tensor = torch.linalg.vector_norm(left, dim=0) * torch.linalg.vector_norm(right, dim=1)
    return scores
