"""Wanda: weights are ranked by their magnitude times the norm of the input that they meet, within every output row.

Source: Sun et al. (arXiv 2306.11695), equation 1 and algorithm 1.
Equations: S_ij = |W_ij| * ||x_j||_2; of every row the floor(s * in) entries of smallest S become zero; with "n:m" all
but the n of largest S of every m consecutive inputs. Nothing is updated.
Faithful: metric, comparison group (the output row), 128 calibration sequences, blocks in order with the inputs that the
pruned blocks before them produce.
Changed: the shares are set so that the model lands exactly on the budget's target: matrices lose entries in proportion
to their size, and the first rows of a matrix take what does not divide. The fused query/key/value matrix is one matrix,
which makes no difference to a metric per row.
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
from ecospa.config import TargetScope

Choice = Callable[[str, Tensor, Tensor], Tensor]


class Wanda(TrainingMethod):
    """Unstructured, the same share of every matrix and row."""

    masks: Masks
    name: ClassVar[str] = "wanda"
    title = "Wanda"
    removes = "zeros"
    group = "masks"
    stage = "one-shot"
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, Masks(), matrix_entries))

    def _compress(self, model: nn.Module, excess: int) -> None:
        counts = spread(excess, {name: weight.numel() for name, weight in block_matrices(model).items()})
        prune_blocks(self, model, lambda name, weight, squares: _least_by_row(_scores(weight, squares), counts[name]))


class WandaNM(TrainingMethod):
    """2 of every 4 consecutive inputs stay; the size is what this gives, and another target is refused."""

    masks: Masks
    name: ClassVar[str] = "wanda_2_4"
    title = "Wanda 2:4"
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
        prune_blocks(self, model, lambda name, weight, squares: _others_of_run(_scores(weight, squares), 2, 4))


def prune_weight(
    weight: Tensor,
    inputs: Tensor,
    sparsity: float = 0.5,
    pattern: str | None = None,
) -> Tensor:
    """A copy of a weight without the entries of smallest |W_ij| * ||x_j|| in every output row.

    W_ij <- 0 for the floor(sparsity * in) smallest S_ij = |W_ij| ||x_j||_2 of row i; of equal ones the earlier goes.

    Args:
        weight: (out, in), floating point, finite.
        inputs: (n, in), what the weight is multiplied with, finite.
        sparsity: share of every row that becomes zero, in [0, 1).
        pattern: "n:m", n of every m inputs stay (m divides the inputs); it alone then decides the sparsity.

    Returns:
        (out, in), the same dtype and device; the arguments are not changed.

    Raises:
        ValueError: a shape, a share or a pattern does not fit, or an entry is NaN or infinite.

    Source: Sun et al., arXiv 2306.11695, equation 1.
    """
    check_weight(weight)
    check_inputs(inputs, weight)
    scores = _scores(weight.detach(), inputs.detach().to(wide(weight)).square().sum(0))
    if pattern is None:
        check_share(sparsity)
        removed = _least(scores, int(weight.shape[1] * sparsity))
    else:
        keep, run = parse_pattern(pattern, weight.shape[1], sparsity)
        removed = _others_of_run(scores, keep, run)
    return weight.detach().masked_fill(removed, 0)


def prune_blocks(method: Wanda | WandaNM, model: nn.Module, choose: Choice) -> None:
    """Block after block: sum the squared inputs of every projection, choose what goes, and set it to zero.

    Args:
        method: a TrainingMethod with `masks` and `calibration`.
        model: changed in place.
        choose: (parameter name, weight (out, in), squared sums of its inputs (in,)) -> bool (out, in), True where an
            entry goes.
    """
    assert method.calibration is not None  # needs_calibration
    for step in walk_blocks(model, method.calibration):
        matrices = projections(step.block)
        squares, _ = step.summed(matrices, lambda inputs: inputs.to(wide(inputs)).square().sum(0))
        for name, module in matrices.items():
            parameter = f"{step.name}.{name}.weight"
            removed = oriented(module, choose(parameter, matrix(module), squares[name]))
            method.masks.remove(model, parameter, removed)
            with torch.no_grad():
                module.get_parameter("weight").masked_fill_(removed, 0)


def check_inputs(inputs: Tensor, weight: Tensor) -> None:
    """Refuse inputs that are no finite floating-point (n, in)."""
    if not isinstance(inputs, Tensor) or inputs.ndim != 2 or not inputs.is_floating_point() or not len(inputs):
        what = f"{inputs.dtype} {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(f"inputs is {what}; it must be a floating-point tensor (n, in) with n of at least 1")
    if inputs.shape[1] != weight.shape[1]:
        raise ValueError(f"inputs has {inputs.shape[1]} columns; the weight has {weight.shape[1]} inputs")
    if not bool(torch.isfinite(inputs).all()):
        raise ValueError("inputs holds a NaN or infinite entry; nothing can be ranked by it")


def wide(like: Tensor) -> torch.dtype:
    """float32, or float64 for float64: what sums are taken in."""
    return torch.promote_types(like.dtype, torch.float32)


def _scores(weight: Tensor, squares: Tensor) -> Tensor:
    return weight.abs().to(wide(weight)) * squares.sqrt()


def _least(scores: Tensor, count: int) -> Tensor:
    order = torch.sort(scores, dim=1, stable=True).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :count], True)


def _least_by_row(scores: Tensor, count: int) -> Tensor:
    """`count` entries of a matrix, evenly over its rows; the first rows take one more where it does not divide."""
    each, rest = divmod(count, len(scores))
    removed = _least(scores, each)
    if rest:
        removed[:rest] = _least(scores[:rest], each + 1)
    return removed


def _others_of_run(scores: Tensor, keep: int, run: int) -> Tensor:
    order = torch.sort(scores.reshape(-1, run), dim=1, stable=True).indices
    gone = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, : run - keep], True)
    return gone.view(scores.shape)
