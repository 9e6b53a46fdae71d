"""Importance of a pair and of its indices: pure functions of gradients and weights (paper, Section 3 and Appendix A).

Pairs are ranked by empirical Fisher information, indices inside a pair by the Frobenius norm of the rank-one term that
they contribute to the product of the two matrices, as a truncated SVD drops its smallest singular values.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

_Number = TypeVar("_Number", float, Tensor)


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
    return mean_square(square_sums([grad.detach().to(torch.float64).contiguous()])[0], grad.numel())


def pair_importance(grads: Sequence[Float[Tensor, ...]]) -> Float[Tensor, " "]:
    """Importance of a pair: the mean over its matrices of their empirical Fisher information.

    I(pair) = mean over W in pair of I(W)

    Args:
        grads: gradients of the pair's matrices: two, or three for a gated feed-forward pair.

    Returns:
        Scalar in float64, (loss per weight) squared; NaN where a gradient is NaN or infinite.

    Raises:
        ValueError: no gradient is given.

    Source: paper, coupled estimation.
    """
    if len(grads) == 0:
        raise ValueError("grads is empty; a pair has at least two matrices, give the gradient of each")
    mean = mean_of_matrices([float(empirical_fisher(grad)) for grad in grads])
    return torch.tensor(mean, dtype=torch.float64, device=grads[0].device)


def square_sums(gradients: Sequence[Float[Tensor, ...]]) -> Float64[Tensor, " matrices"]:
    """Sum of the squared entries of every gradient, as fast as memory allows.

    sum_ij (dL/dW_ij)^2

    Args:
        gradients: of one device. On the CPU squares keep the format of float32 and float64 gradients, and a sum that
            left it shows: `FLOORS` says below what, and infinity above.

    Returns:
        float64 (matrices,), on that device, without waiting for it.
    """
    if gradients[0].device.type != "cpu":
        return torch.stack(torch._foreach_norm(list(gradients), 2, torch.float64)).square_()
    return torch.stack([_square_sum(gradient) for gradient in gradients])


def mean_square(total: _Number, entries: int, steps: int = 1) -> _Number:
    """Mean squared gradient entry from a sum of squares over `steps` steps of a matrix of so many entries."""
    return total / (steps * entries)


def mean_of_matrices(values: Sequence[float]) -> float:
    """Mean over the matrices of a pair, exactly rounded; NaN where one of them is NaN or infinite."""
    return math.fsum(values) / len(values) if all(math.isfinite(value) for value in values) else math.nan


def divided_by_kind(importances: Mapping[str, float], kinds: Mapping[str, str]) -> dict[str, float]:
    """Importances over the mean of their kind, so that no kind is cut first for the scale of its gradients alone.

    I'(pair) = I(pair) / mean of I over the pairs of its kind

    Args:
        importances: importance of every pair.
        kinds: kind of every pair, such as its `PairKind`.

    Returns:
        Values of mean 1 within every kind; a kind of which all are zero stays at zero. NaN and infinite values, which
        rank no pair, stay as they are, and their kind with them.

    Deviation: the paper compares the Fisher information of query, value and feed-forward matrices as it is.
    """
    of_kind: dict[str, list[float]] = defaultdict(list)
    for name, value in importances.items():
        of_kind[kinds[name]].append(value)
    means = {kind: mean_of_matrices(values) for kind, values in of_kind.items()}
    return {
        name: value / mean if (mean := means[kinds[name]]) > 0 else value  # false for NaN as well
        for name, value in importances.items()
    }


FLOORS = {torch.float64: 2.0**-980, torch.float32: 2.0**-100, torch.bfloat16: 2.0**-100, torch.float16: 2.0**-28}
"""Mean square of gradients of a format below which squares of single entries begin to be lost in `square_sums`."""


def scaled_norm(gradient: Float[Tensor, ...]) -> tuple[float, int]:
    """Frobenius norm as (m, e), m * 2^e, without leaving float64 on the way: m is 0, NaN or infinite as the norm is."""
    largest = float(gradient.abs().amax())
    if not 0 < largest < math.inf:
        return largest, 0
    exponent = math.frexp(largest)[1]
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float64))
    half = exponent // 2  # 2^-e itself may be too large a number
    scaled = wide * 2.0**-half * 2.0 ** (half - exponent)
    return float(torch.linalg.vector_norm(scaled)), exponent


def scaled(value: float, exponent: int) -> float:
    """Value * 2^exponent, zero where it is too small for float64."""
    return math.ldexp(value, exponent) if 0 < value < math.inf else value


def _square_sum(gradient: Tensor) -> Tensor:
    """Sum of squares of one matrix on the CPU, as fast as its memory: one dot product, or the norms of its rows."""
    if gradient.is_contiguous() and gradient.dtype in (torch.float32, torch.float64):
        flat = gradient.view(-1)
        return torch.dot(flat, flat).to(torch.float64)
    rows = torch.linalg.vector_norm(gradient, dim=-1).to(torch.float64)
    return torch.dot(rows, rows)


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


def unit_norms(
    matrices: Sequence[tuple[Float[Tensor, ...], int, Int64[Tensor, "groups width repeats"]]], unit: int
) -> Float[Tensor, "groups units"]:
    """Norm of every removable unit of one side of a pair: what `index_scores` multiplies, for heads and fused weights.

    n_gu = sqrt(sum over matrices, copies and the indices of unit u of the squared entries at their positions)

    Args:
        matrices: (parameter, axis along which the indices lie, int64 (groups, width, repeats) positions along it).
        unit: indices that leave together; index j belongs to unit j mod (width / unit).

    Returns:
        (groups, width / unit) on the CPU, float32 or wider.
    """
    squares = torch.stack([_index_squares(*matrix) for matrix in matrices]).sum(0)
    groups, width = squares.shape
    return squares.view(groups, unit, width // unit).sum(1).sqrt()


def position_sums(values: Float[Tensor, ...], axis: int) -> Float64[Tensor, " positions"]:
    """Sum of a tensor over all axes but one, in float64, on its device."""
    others = [position for position in range(values.ndim) if position != axis]
    return values.sum(others, dtype=torch.float64) if others else values.to(torch.float64)


def unit_sums(
    values: Float64[Tensor, " positions"], index: Int64[Tensor, "groups width repeats"], unit: int
) -> Float64[Tensor, "groups units"]:
    """Sum of the values at the positions of every removable unit.

    s_gu = sum over copies and the indices of unit u of values[position]

    Args:
        values: one per position of an axis, such as `position_sums` of W * dL/dW.
        index: positions of the indices along that axis, on the same device.
        unit: indices that leave together; index j belongs to unit j mod (width / unit).

    Returns:
        (groups, width / unit), on the device.
    """
    sums = values[index].sum(-1)
    groups, width = sums.shape
    return sums.view(groups, unit, width // unit).sum(1)


def removal_effects(
    left: Float64[Tensor, "groups units"], right: Float64[Tensor, "groups units"]
) -> Float64[Tensor, "groups units"]:
    """Effect on the loss, to first order, of the removal of every unit of a pair.

    e_u = (|sum over the left entries of unit u of W * dL/dW| + |the same of the right entries|) / 2

    Taking a unit off either side removes it from the product. The factors s and 1/s on the two sides leave a product as
    it is, so both sums are equal in size wherever nothing lies between the two matrices, and where ReLU does; behind
    another activation function, or a norm of heads, they differ and their mean stands for both.

    Args:
        left: `unit_sums` of W * dL/dW over all tensors of the left side, biases too.
        right: of the right side.

    Returns:
        (groups, units), in the unit of the loss.

    Source: Molchanov et al., arXiv 1611.06440, equation 8, of a unit of weights instead of an activation.
    """
    return (left.abs() + right.abs()) / 2


def _index_squares(parameter: Tensor, axis: int, index: Tensor) -> Tensor:
    """Squared norm per shared index, (groups, width), over the other axes of the matrix and the copies."""
    wide = parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32))
    others = [position for position in range(wide.ndim) if position != axis]
    return wide.square().sum(others).cpu()[index].sum(-1)
