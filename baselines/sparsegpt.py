"""SparseGPT: optimal brain surgeon, column by column: what stays of a row makes up for what goes.

Source: Frantar and Alistarh (arXiv 2301.00774), algorithm 1; the surgeon's step is Hassibi and Stork's (1993).
Equations: H = 2 X^T X / n + lambda I with lambda = damping * mean diag(2 X^T X / n); U^T U = H^-1, U upper triangular.
Removing W_ij costs W_ij^2 / U_jj^2 at the moment when the columns before j are fixed, and the columns k > j of row i
get W_ik -= W_ij / U_jj * U_jk. Blocks of columns choose their mask together, from the weights as the earlier blocks
left them; "n:m" chooses it for m columns at a time.
Faithful: mask selection by blocks, lazy update of the columns after a block, damping, dead inputs (never active: their
weights become zero and their curvature one), 128 calibration sequences, blocks in order with pruned inputs.
Changed: a model lands exactly on the budget's target: matrices lose entries in proportion to their size, and within a
matrix column blocks too. `prune_weight` counts as the authors do: the entries up to the floor(share * entries)-th of a
block, ties with it included.
Simplified: nothing is removed, so neither memory nor time is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.block_walk import matrix, oriented, projections, walk_blocks
from baselines.entries import (
    block_matrices,
    check_share,
    check_weight,
    half_of_matrices,
    half_size,
    matrix_entries,
    parse_pattern,
    spread,
)
from baselines.masks import Masks
from baselines.method import Budget, TrainingMethod
from baselines.posttraining import PostTraining
from baselines.wanda import check_inputs, wide
from ecospa.config import TargetScope

Select = Callable[[Tensor, int], Tensor]
"""(scores (out, columns), first column) -> bool (out, columns), True where an entry goes."""

BLOCK_SIZE, DAMPING = 128, 0.01


class SparseGPT(TrainingMethod):
    """Unstructured, the same share of every matrix."""

    name: ClassVar[str] = "sparsegpt"
    title = "SparseGPT"
    removes = "zeros"
    group = "masks"
    stage = "one-shot"
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, Masks(), matrix_entries))

    def _compress(self, model: nn.Module, excess: int) -> None:
        counts = spread(excess, {name: weight.numel() for name, weight in block_matrices(model).items()})
        _prune_blocks(self, model, lambda name, weight: (exactly(counts[name], weight, BLOCK_SIZE), BLOCK_SIZE))


class SparseGPTNM(TrainingMethod):
    """2 of every 4 consecutive inputs stay; the size is what this gives, and another target is refused."""

    name: ClassVar[str] = "sparsegpt_2_4"
    title = "SparseGPT 2:4"
    removes = "zeros"
    group = "masks"
    stage = "one-shot"
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, Masks(), half_of_matrices(budget)))

    @classmethod
    def only_size(cls, model: nn.Module, scope: TargetScope) -> float:
        """Share that is left when half of every matrix goes."""
        return half_size(model, scope)

    def _compress(self, model: nn.Module, excess: int) -> None:
        _prune_blocks(self, model, lambda name, weight: (others_of_run(2), 4))


def prune_weight(
    weight: Tensor,
    inputs: Tensor,
    sparsity: float = 0.5,
    pattern: str | None = None,
    block_size: int = BLOCK_SIZE,
    damping: float = DAMPING,
) -> Tensor:
    """A copy of a weight with entries removed and the rest updated, so that X W^T changes little.

    min ||X W^T - X W'^T||_F over the entries that stay, column by column (module docstring)

    Args:
        weight: (out, in), floating point, finite.
        inputs: (n, in), what the weight is multiplied with, finite.
        sparsity: share of the entries of every column block that become zero, in [0, 1).
        pattern: "n:m", n of every m inputs stay (m divides the inputs); it alone then decides the sparsity.
        block_size: columns whose mask is chosen together, at least 1; with a pattern the mask is chosen per m columns.
        damping: share of the mean of the Hessian's diagonal that is added to it, above 0.

    Returns:
        (out, in), the same dtype and device; the arguments are not changed.

    Raises:
        ValueError: a shape, share, pattern, block size or damping does not fit, or an entry is NaN or infinite.

    Source: Frantar and Alistarh, arXiv 2301.00774, algorithm 1.
    """
    check_weight(weight)
    check_inputs(inputs, weight)
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1:
        raise ValueError(f"block_size is {block_size!r}; it must be a whole number of at least 1")
    if not isinstance(damping, (int, float)) or not 0 < damping < float("inf"):
        raise ValueError(f"damping is {damping!r}; it must be a number above 0, such as 0.01")
    if pattern is None:
        check_share(sparsity)
        select, width = up_to(sparsity), block_size
    else:
        keep, width = parse_pattern(pattern, weight.shape[1], sparsity)
        select = others_of_run(width - keep)
    exact = inputs.detach().to(wide(weight))
    return surgeon(weight.detach(), exact.t() @ exact, len(inputs), select, width, damping)[0]


def surgeon(
    weight: Tensor, products: Tensor, count: int, select: Select, width: int, damping: float = DAMPING
) -> tuple[Tensor, Tensor]:
    """The sweep over the columns of one matrix.

    Args:
        weight: (out, in).
        products: (in, in), X^T X.
        count: rows of X.
        select: which entries of a block of columns go.
        width: columns per block.
        damping: share of the mean diagonal.

    Returns:
        New weight (out, in) in the dtype of `weight`, and bool (out, in), True where an entry went.
    """
    new = weight.to(wide(weight)).clone()
    hessian = 2 * products / count
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    new[:, dead] = 0
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    removed = torch.zeros_like(new, dtype=torch.bool)
    for start in range(0, new.shape[1], width):
        stop = min(start + width, new.shape[1])
        diagonal = factor.diagonal()[start:stop]
        removed[:, start:stop] = gone = select((new[:, start:stop] / diagonal).square(), start)
        errors = torch.zeros_like(new[:, start:stop])
        for column in range(start, stop):
            own = column - start
            errors[:, own] = torch.where(gone[:, own], new[:, column], 0) / factor[column, column]
            new[:, column:stop] -= errors[:, own, None] * factor[column, column:stop]
        new[:, start:stop].masked_fill_(gone, 0)
        new[:, stop:] -= errors @ factor[start:stop, stop:]
    return new.to(weight.dtype), removed


def up_to(share: float) -> Select:
    """Entries whose score is at most the floor(share * entries)-th of their block; none for a share of 0."""

    def select(scores: Tensor, start: int) -> Tensor:
        threshold = scores.flatten().sort().values[int(scores.numel() * share)]
        return scores <= threshold if share > 0 else torch.zeros_like(scores, dtype=torch.bool)

    return select


def exactly(count: int, weight: Tensor, width: int) -> Select:
    """`count` entries of a matrix, over its blocks of columns in proportion to their size."""
    rows, columns = weight.shape
    sizes = {str(start): rows * min(width, columns - start) for start in range(0, columns, width)}
    counts = spread(count, sizes)

    def select(scores: Tensor, start: int) -> Tensor:
        order = torch.sort(scores.flatten(), stable=True).indices[: counts[str(start)]]
        return torch.zeros_like(scores, dtype=torch.bool).flatten().index_fill_(0, order, True).view(scores.shape)

    return select


def others_of_run(gone: int) -> Select:
    """The `gone` entries of lowest score in every row of a block as wide as the pattern."""

    def select(scores: Tensor, start: int) -> Tensor:
        order = torch.sort(scores, dim=1, stable=True).indices[:, :gone]
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)

    return select


def _prune_blocks(
    method: SparseGPT | SparseGPTNM, model: nn.Module, rule: Callable[[str, Tensor], tuple[Select, int]]
) -> None:
    """Block after block: sum X^T X of every projection while the block is whole, then prune all of them."""
    assert method.calibration is not None and method.masks is not None  # needs_calibration; a masking method
    for step in walk_blocks(model, method.calibration):
        own = projections(step.block)
        products, counts = step.summed(own, _products)
        for name, module in own.items():
            weight, parameter = matrix(module), f"{step.name}.{name}.weight"
            select, width = rule(parameter, weight)
            new, removed = surgeon(weight, products[name], counts[name], select, width)
            weight.copy_(new)
            method.masks.remove(model, parameter, oriented(module, removed))


def _products(inputs: Tensor) -> Tensor:
    exact = inputs.to(wide(inputs))
    return exact.t() @ exact
