"""Magnitude pruning: single weights of small absolute value go, wherever they are.

Source: Han et al. (arXiv 1506.02626); gradual schedule of Zhu and Gupta (arXiv 1710.01878, equation 1), which is the
budget's cubic curve. N:M pattern: Zhou et al. (arXiv 2102.04010): n of every m consecutive inputs stay.
Equations: of a matrix with n entries the round(s n) of smallest |w| become zero; s is the same in every matrix of the
blocks.
Faithful: gradual, uniform per layer, masks stay, pruned weights are not trained.
Simplified: the matrices of the coupled pairs are pruned (every matrix inside the blocks), biases and norms are not.
What is removed is masked, so no memory and no time is saved: unstructured zeros need sparse kernels.
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.curve import Event, SizeCurve
from baselines.masks import Masks
from baselines.method import Budget, TrainingMethod
from ecospa import ConfigError, coupled_pairs


class Magnitude(TrainingMethod):
    """Gradual unstructured magnitude pruning on the budget's size curve."""

    name: ClassVar[str] = "magnitude"

    def __init__(self, budget: Budget) -> None:
        self.masks = Masks()
        super().__init__(budget, SizeCurve(budget, self._choose, masks=self.masks))

    def _choose(self, event: Event) -> None:
        matrices = block_matrices(event.state.model)
        shares = spread(event.excess + self.masks.count, {name: weight.numel() for name, weight in matrices.items()})
        for name, weight in matrices.items():
            size = weight.detach().abs()
            if name in self.masks.removed:
                # below every magnitude: what is gone stays gone, a live weight of value zero goes before others do
                size = size.masked_fill(self.masks.removed[name].to(size.device), -1)
            self.masks.remove(event.state.model, name, _smallest(size.flatten(), shares[name]).view(weight.shape))


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
        keep, run = parse_pattern(pattern, weight.shape[1], sparsity)
        order = torch.sort(size.view(-1, run), dim=1, descending=True, stable=True).indices
        removed = torch.ones_like(order, dtype=torch.bool).scatter_(1, order[:, :keep], False).view(weight.shape)
    return weight.detach().masked_fill(removed, 0)


def parse_pattern(pattern: str, inputs: int, sparsity: float = 0.5) -> tuple[int, int]:
    """n and m of an "n:m" pattern, n of every m inputs stay.

    Args:
        pattern: such as "2:4".
        inputs: input features, which m must divide.
        sparsity: what the caller was given beside it: its default, 0.5, or the share that the pattern means.

    Raises:
        ValueError: the pattern is malformed, does not divide the inputs, or contradicts the sparsity.
    """
    match = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    keep, run = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < keep < run:
        raise ValueError(f"pattern is {pattern!r}; it must be 'n:m' with 0 < n < m, such as '2:4'")
    if inputs % run:
        raise ValueError(f"pattern is {pattern!r}; {run} must divide the {inputs} inputs of the weight")
    if sparsity not in (0.5, 1 - keep / run):
        raise ValueError(f"sparsity is {sparsity}, but pattern {pattern!r} means {1 - keep / run}; give one of them")
    return keep, run


def block_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices of all coupled pairs by name, in the order of the blocks; a fused one once."""
    names = dict.fromkeys(axis.parameter for pair in coupled_pairs(model) for axis in pair.axes)
    return {name: model.get_parameter(name) for name in names if model.get_parameter(name).ndim > 1}


def _smallest(size: Tensor, count: int) -> Tensor:
    """(entries,) -> (entries,), True at the `count` smallest; of equal ones the later goes first."""
    order = torch.sort(size, descending=True, stable=True).indices
    return torch.zeros_like(size, dtype=torch.bool).index_fill_(0, order[len(order) - count :], True)


def spread(count: int, sizes: dict[str, int]) -> dict[str, int]:
    """`count` entries over matrices in proportion to their sizes, exactly: the first ones take the remainder."""
    total = sum(sizes.values())
    if count >= total:
        raise ConfigError(
            f"the size curve asks to remove {count} weights, the matrices of the blocks have {total}; raise target_size"
        )
    shares = {name: count * size // total for name, size in sizes.items()}
    for name in list(shares)[: count - sum(shares.values())]:
        shares[name] += 1
    return shares


def check_share(sparsity: float) -> None:
    """Refuse a sparsity outside [0, 1)."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float)) or not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity!r}; it must be a share in [0, 1)")


def check_weight(weight: Tensor) -> None:
    """Refuse what is no finite floating-point matrix."""
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        what = f"{weight.dtype} {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"weight is {what}; it must be a floating-point tensor (out, in)")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("weight holds a NaN or infinite entry; nothing can be ranked by it")
