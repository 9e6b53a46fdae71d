"""APOLLO: the gradient itself is the update, scaled per channel by what Adam does in a small random subspace.

Source: Zhu et al. (arXiv 2412.05270), algorithm 1. The library pytorch-optimizer (4.1) has it, too, but scales the
projected gradient and projects that back, so that all steps stay in the random subspace; hence this file.
Equations: G is the gradient of a weight, turned so that its rows are the larger side, (m, n) with m >= n; every T steps
P (n, r) is drawn anew from N(0, 1 / r). R = G P, (m, r), goes through Adam: M, V its moments, N = M / (sqrt(V) + eps).
    apollo         U_i = |N_i| / |R_i| G_i, for every row i (a channel of the larger side)
    apollo_mini    U = |N| / |R| G, one factor for the matrix, r = 1
    W <- W - lr sqrt(scale) c U,  c = sqrt(1 - b2^t) / (1 - b1^t),  |U| at most 1.01 times that of the step before
Faithful: all of this, T = 200, P from random numbers alone, eps 1e-6; r a quarter of the smaller side and scale 1 for
`apollo`, r = 1 and scale 128 for `apollo_mini`; Adam's correction c behind the limiter, as in the authors' code;
everything outside of the blocks' matrices is trained by AdamW at the same rate.
Changed: P is kept instead of drawn again from its seed in every step, which costs n r numbers per matrix. Decay is
decoupled and applied before the step, as in torch's AdamW.
The budget's target is not looked at.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.galore import RANK_SHARE, UPDATE_GAP
from baselines.method import Budget, TrainingMethod
from baselines.split_optimizer import MatrixOptimizer, SplitOptimizer, by_rank, limited, with_adamw

MINI_SCALE = 128.0


class Apollo(TrainingMethod):
    """Scales every channel of the gradient by the step that Adam makes in a random subspace."""

    name: ClassVar[str] = "apollo"
    title = "APOLLO"
    removes = "nothing"
    group = "memory-efficient training"
    reads_gradients: ClassVar[bool] = False

    def build_optimizer(self, model: nn.Module) -> SplitOptimizer:
        """APOLLO for the matrices of the blocks, AdamW for the rest."""
        return with_adamw(model, self.budget, lambda groups: ApolloOptimizer(by_rank(groups, RANK_SHARE), self.budget))


class ApolloMini(TrainingMethod):
    """Scales the whole gradient of a matrix by the step that Adam makes along one random direction."""

    name: ClassVar[str] = "apollo_mini"
    title = "APOLLO-Mini"
    removes = "nothing"
    group = "memory-efficient training"
    reads_gradients: ClassVar[bool] = False

    def build_optimizer(self, model: nn.Module) -> SplitOptimizer:
        """APOLLO-Mini for the matrices of the blocks, AdamW for the rest."""
        return with_adamw(
            model,
            self.budget,
            lambda groups: ApolloOptimizer(groups, self.budget, rank=1, scale=MINI_SCALE, per_channel=False),
        )


class ApolloOptimizer(MatrixOptimizer):
    """The equations of this file.

    Args:
        params: groups of matrices.
        budget: gives learning rate, weight decay and the seed of the projections.
        options: rank, scale, per_channel, update_gap, betas, eps.
    """

    def __init__(self, params: Any, budget: Budget, **options: Any) -> None:
        usual = {
            "rank": 1, "scale": 1.0, "per_channel": True, "update_gap": UPDATE_GAP, "betas": (0.9, 0.999), "eps": 1e-6,
        }  # fmt: skip
        super().__init__(params, budget, **{**usual, **options})
        self._seed = budget.seed
        everything = [parameter for group in self.param_groups for parameter in group["params"]]
        self._numbers = {parameter: number for number, parameter in enumerate(everything)}

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Sqrt(scale) c U, (out, in)."""
        wide = gradient.shape[0] < gradient.shape[1]
        tall = gradient.T if wide else gradient
        step = state.setdefault("step", 0)
        if step % group["update_gap"] == 0:
            state["projection"] = self._drawn(parameter, step, tall, group["rank"])
        low = tall @ state["projection"]
        if step == 0:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(low), torch.zeros_like(low)
        state["step"] = step + 1
        beta1, beta2 = group["betas"]
        state["exp_avg"].lerp_(low, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(low, low, value=1 - beta2)
        adapted = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + group["eps"])
        axes = (1,) if group["per_channel"] else (0, 1)
        tiny = torch.finfo(low.dtype).tiny
        factor = adapted.norm(dim=axes, keepdim=True) / low.norm(dim=axes, keepdim=True).clamp(min=tiny)
        correction = (1 - beta2 ** (step + 1)) ** 0.5 / (1 - beta1 ** (step + 1))
        scaled = limited(tall * factor, state) * (group["scale"] ** 0.5 * correction)
        return scaled.T if wide else scaled

    def _drawn(self, parameter: nn.Parameter, step: int, tall: Tensor, rank: int) -> Tensor:
        """P, (n, r), for a gradient (m, n): seed, matrix and step decide it, on every device."""
        seed = (1_000_003 * (step + 1) + 7919 * self._numbers[parameter] + self._seed) % 2**32
        numbers = torch.randn(tall.shape[1], rank, generator=torch.Generator("cpu").manual_seed(seed))
        return (numbers / rank**0.5).to(tall)
