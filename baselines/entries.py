"""Single entries of matrices: which there are, how many go from each, and what the unstructured methods refuse."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from baselines.block_walk import matrix
from baselines.method import Budget
from ecospa import ConfigError, coupled_pairs
from ecospa.accounting import parameters
from ecospa.config import TargetScope


def block_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices of all coupled pairs by name, in the order of the blocks; a fused one once."""
    names = dict.fromkeys(axis.parameter for pair in coupled_pairs(model) for axis in pair.axes)
    return {name: model.get_parameter(name) for name in names if model.get_parameter(name).ndim > 1}


def matrix_entries(model: nn.Module) -> int:
    """Entries of all matrices inside the blocks: what an unstructured method can remove."""
    return sum(weight.numel() for weight in block_matrices(model).values())


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


def half_size(model: nn.Module, scope: TargetScope) -> float:
    """Share of a scope that is left when half of every matrix goes."""
    return 1 - matrix_entries(model) // 2 / parameters(model, scope)


def half_of_matrices(budget: Budget) -> Callable[[nn.Module], int]:
    """Model -> half of the entries of its matrices, after refusing a target that 2:4 cannot meet within 1 %."""

    def removable(model: nn.Module) -> int:
        half = matrix_entries(model) // 2
        whole = parameters(model, budget.target_scope)
        wanted = budget.config().target_size
        if abs(whole - half - wanted * whole) > 0.01 * whole:
            raise ConfigError(
                f"target_size is {wanted}; the pattern 2:4 gives {1 - half / whole:.4f} of the {budget.target_scope} "
                "of this model and nothing else; give that value"
            )
        for name in block_matrices(model):
            inputs = matrix(model.get_submodule(name.removesuffix(".weight"))).shape[1]
            if inputs % 4:
                raise ConfigError(f"{name} has {inputs} inputs; the pattern 2:4 needs a multiple of 4")
        return whole

    return removable


def parse_pattern(pattern: str, inputs: int, sparsity: float = 0.5) -> tuple[int, int]:
    """N and m of an "n:m" pattern, n of every m inputs stay.

    Args:
        pattern: such as "2:4".
        inputs: input features, which m must divide.
        sparsity: the caller's other argument: its default, 0.5, or the share that the pattern means.

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
