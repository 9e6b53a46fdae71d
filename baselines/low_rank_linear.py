"""A projection as a product of two thin matrices, and the factors that are closest to a given weight.

Source: Kamalakara et al. (arXiv 2209.13569), spectral initialisation. The two factors are Linears, so that whatever
looks for Linears (counters, block walks) finds them; the weight of the product exists nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from baselines.block_walk import matrix, projections
from ecospa import ConfigError
from ecospa.families import transformer_blocks


class LowRankLinear(nn.Module):
    """y = B (A x) + b in place of a Linear or Conv1D: x (..., in), y (..., out).

    Attributes:
        inner: the Linear of A, (r, in).
        outer: the Linear of B, (out, r), and of b.
        sparse_share: share of the matrix that is stored in addition to the factors; none here.

    Args:
        inputs: in.
        outputs: out.
        rank: r, in [1, min(in, out)].
        bias: whether there is a b.
        place: dtype and device of the uninitialised factors.
    """

    sparse_share: ClassVar[float] = 0.0

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool, **place: Any) -> None:
        super().__init__()
        # skip_init: the factors are about to be filled, and must not draw from the caller's random numbers
        self.inner = nn.utils.skip_init(nn.Linear, inputs, rank, bias=False, **place)
        self.outer = nn.utils.skip_init(nn.Linear, rank, outputs, bias=bias, **place)

    @classmethod
    def like(cls, module: Any, rank: int) -> Self:
        """Uninitialised factors of the sizes, the dtype and the device of a Linear or Conv1D."""
        weight = matrix(module)
        new = cls(
            weight.shape[1], weight.shape[0], rank, module.bias is not None, dtype=weight.dtype, device=weight.device
        )
        return new.train(module.training)

    @property
    def rank(self) -> int:
        """R."""
        return self.inner.out_features

    def forward(self, states: Tensor) -> Tensor:
        """B (A x) + b."""
        product: Tensor = self.outer(self.inner(states))
        return product


@torch.no_grad()
def put_in_place(model: nn.Module, name: str, new: LowRankLinear) -> None:
    """Put a layer in the place of a projection; it keeps the bias, and trains if the projection did.

    Args:
        model: the model.
        name: dotted name of the projection.
        new: made by `like`, its other values set.
    """
    module: Any = model.get_submodule(name)
    new.requires_grad_(module.weight.requires_grad)
    if module.bias is not None:
        new.outer.bias.copy_(module.bias)
        new.outer.bias.requires_grad_(module.bias.requires_grad)
    replace_module(model, name, new)


@torch.no_grad()
def factorise(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Replace projections of a model's blocks by their factors, in place.

    Args:
        model: a model of a known family.
        ranks: dotted name of a projection -> r; others stay whole.

    Raises:
        ConfigError: a rank or a name is wrong, or a weight is NaN or infinite.
    """
    shapes = matrix_shapes(model)
    for name, rank in ranks.items():
        if name not in shapes or not 1 <= rank <= min(shapes[name]):
            allowed = f"it must lie in [1, {min(shapes[name])}]" if name in shapes else "no block has this projection"
            raise ConfigError(f"rank of {name} is {rank}; {allowed}")
        module: Any = model.get_submodule(name)
        outer, inner = spectral_factors(matrix(module), rank)
        new = LowRankLinear.like(module, rank)
        new.outer.weight.copy_(outer)
        new.inner.weight.copy_(inner)
        put_in_place(model, name, new)


def spectral_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The closest matrix of a rank, as two factors of equal norm.

    W = U S V^T;  B = U_r sqrt(S_r),  A = sqrt(S_r) V_r^T

    Args:
        weight: W, (out, in), finite.
        rank: r, in [1, min(out, in)].

    Returns:
        B (out, r) and A (r, in), float64.

    Raises:
        ConfigError: the weight is NaN or infinite somewhere.

    Source: arXiv 2209.13569, spectral initialisation.
    """
    if not bool(torch.isfinite(weight).all()):
        raise ConfigError("a weight holds a NaN or infinite entry and has no factors; load or initialise it anew")
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def matrix_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """(out, in) of every projection inside the blocks, by dotted name."""
    shapes = {}
    for block_name, block in transformer_blocks(model).items():
        for name, module in projections(block).items():
            out, inner = matrix(module).shape
            shapes[f"{block_name}.{name}"] = (out, inner)
    return shapes


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put another module in the place of the one with a dotted name."""
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)
