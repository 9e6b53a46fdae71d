"""Magnitude pruning: single weights of small absolute value go, wherever they are.

Source: Han et al. (arXiv 1506.02626); gradual schedule of Zhu and Gupta (arXiv 1710.01878, equation 1), which is the
budget's cubic curve. N:M pattern: Zhou et al. (arXiv 2102.04010): n of every m consecutive inputs stay.
Equations: of a matrix with n entries the round(s n) of smallest |w| become zero; s is the same in every matrix of the
blocks (per layer), or all entries of all matrices stand in one ranking (global).
Faithful: gradual and one-shot, per layer and global, n:m; masks stay, pruned weights are not trained.
Simplified: the matrices of the coupled pairs are pruned (every matrix inside the blocks), biases and norms are not.
What is removed is masked, so no memory and no time is saved: unstructured zeros need sparse kernels.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.block_walk import matrix, oriented
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
from baselines.masked_curve import MaskedCurve, MaskedEvent
from baselines.masks import Masks
from baselines.method import Budget, TrainingMethod
from baselines.posttraining import PostTraining
from ecospa.config import TargetScope


class Magnitude(TrainingMethod):
    """Gradual unstructured magnitude pruning on the budget's size curve."""

    masks: Masks
    name: ClassVar[str] = "magnitude"
    title = "magnitude mask"
    removes = "zeros"
    group = "masks"
    reads_gradients: ClassVar[bool] = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, MaskedCurve(budget, Masks(), self._choose))

    def _choose(self, event: MaskedEvent) -> None:
        model = event.state.model
        matrices = block_matrices(model)
        shares = spread(event.excess + self.masks.count, {name: weight.numel() for name, weight in matrices.items()})
        for name, size in live_sizes(model, self.masks).items():
            self.masks.remove(model, name, _smallest(size.flatten(), shares[name]).view(size.shape))


class MagnitudeGlobal(TrainingMethod):
    """Gradual, all matrices in one ranking."""

    masks: Masks
    name: ClassVar[str] = "magnitude_global"
    title = "magnitude, global, gradual"
    removes = "zeros"
    group = "masks"
    reads_gradients: ClassVar[bool] = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, MaskedCurve(budget, Masks(), self._choose))

    def _choose(self, event: MaskedEvent) -> None:
        remove_globally(event.state.model, self.masks, event.excess + self.masks.count)


class MagnitudeOneShot(TrainingMethod):
    """At the end, the same share of every matrix."""

    masks: Masks
    name: ClassVar[str] = "magnitude_one_shot"
    title = "magnitude, one shot"
    removes = "zeros"
    group = "masks"
    stage = "one-shot"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, Masks(), matrix_entries))

    def _compress(self, model: nn.Module, excess: int) -> None:
        shares = spread(excess, {name: weight.numel() for name, weight in block_matrices(model).items()})
        for name, size in live_sizes(model, self.masks).items():
            self.masks.remove(model, name, _smallest(size.flatten(), shares[name]).view(size.shape))


class MagnitudeGlobalOneShot(TrainingMethod):
    """At the end, all matrices in one ranking."""

    masks: Masks
    name: ClassVar[str] = "magnitude_global_one_shot"
    title = "magnitude, global"
    removes = "zeros"
    group = "masks"
    stage = "one-shot"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, Masks(), matrix_entries))

    def _compress(self, model: nn.Module, excess: int) -> None:
        remove_globally(model, self.masks, excess)


class MagnitudeNM(TrainingMethod):
    """At the end, 2 of every 4 consecutive inputs stay; the size is what this gives, and another target is refused."""

    masks: Masks
    name: ClassVar[str] = "magnitude_2_4"
    title = "magnitude 2:4"
    removes = "zeros"
    group = "masks"
    stage = "one-shot"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, Masks(), half_of_matrices(budget)))

    @classmethod
    def only_size(cls, model: nn.Module, scope: TargetScope) -> float:
        """Share that is left when half of every matrix goes."""
        return half_size(model, scope)

    def _compress(self, model: nn.Module, excess: int) -> None:
        for name in block_matrices(model):
            module = model.get_submodule(name.removesuffix(".weight"))
            removed = _others_of_run(matrix(module).abs(), 2, 4)
            self.masks.remove(model, name, oriented(module, removed))


def prune_weight(weight: Tensor, sparsity: float = 0.5, pattern: str | None = None) -> Tensor:
    """A copy of a weight without its entries of smallest magnitude.

    W_ij <- 0 for the round(sparsity * out * in) smallest |W_ij|; with a pattern "n:m" for all but the n largest of
    every m consecutive inputs of a row. Of equal magnitudes the earlier entry stays.

    Args:
        weight: (out, in), of a floating-point dtype, finite.
        sparsity: share of the entries that become zero, in [0, 1).
        pattern: "n:m", n of every m inputs stay (0 < n < m, m divides the inputs); it alone then decides the sparsity.

    Returns:
        (out, in), the same dtype and device; the input is not changed.

    Raises:
        ValueError: the weight is no finite floating-point matrix, the sparsity is out of range, or the pattern is
            malformed, does not divide the inputs, or contradicts a sparsity that was given.

    Source: Han et al., arXiv 1506.02626; Zhou et al., arXiv 2102.04010.
    """
    check_weight(weight)
    check_share(sparsity)
    size = weight.detach().abs()
    if pattern is None:
        removed = _smallest(size.flatten(), round(sparsity * weight.numel())).view(weight.shape)
    else:
        removed = _others_of_run(size, *parse_pattern(pattern, weight.shape[1], sparsity))
    return weight.detach().masked_fill(removed, 0)


def live_sizes(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Magnitudes of all block matrices; what is gone is below every magnitude, so that it goes before a live zero."""
    sizes = {name: weight.detach().abs() for name, weight in block_matrices(model).items()}
    return {
        name: size.masked_fill(masks.removed[name].to(size.device), -1) if name in masks.removed else size
        for name, size in sizes.items()
    }


def remove_globally(model: nn.Module, masks: Masks, count: int) -> None:
    """Mask the `count` smallest entries of all block matrices together; of equal ones the later goes first."""
    sizes = live_sizes(model, masks)
    flat = torch.cat([size.flatten() for size in sizes.values()])
    gone = _smallest(flat, count).split([size.numel() for size in sizes.values()])
    for (name, size), part in zip(sizes.items(), gone, strict=True):
        masks.remove(model, name, part.view(size.shape))


def _smallest(size: Tensor, count: int) -> Tensor:
    """(entries,) -> (entries,), True at the `count` smallest; of equal ones the later goes first."""
    order = torch.sort(size, descending=True, stable=True).indices
    return torch.zeros_like(size, dtype=torch.bool).index_fill_(0, order[len(order) - count :], True)


def _others_of_run(size: Tensor, keep: int, run: int) -> Tensor:
    """(out, in) -> bool (out, in), True at all but the `keep` largest of every run of inputs.

    Of equal ones the later goes first.
    """
    order = torch.sort(size.reshape(-1, run), dim=1, descending=True, stable=True).indices
    return torch.ones_like(order, dtype=torch.bool).scatter_(1, order[:, :keep], False).view(size.shape)
