"""GaLore: the model stays dense, but Adam keeps its moments in a low-rank subspace of the gradient.

Source: Zhao et al. (arXiv 2403.03507), definition 3.6, section 4 and algorithm 2.
Equations: G is the gradient of a weight (m, n), m = out <= n = in; every T steps P = the first r columns of U of
G = U S V^T. R = P^T G, (r, n), goes through Adam: M, V its moments, N = M^ / (sqrt(V^) + eps). W <- W - lr scale P N.
For m > n the right singular vectors stand in: R = G P, and P N becomes N P^T.
Faithful: projected are all matrices of the blocks, as in the paper's pre-training; T = 200, scale 0.25; moments stay as
they are when P is renewed; everything else (embeddings, head, norms, biases) is trained by plain AdamW.
Changed: r defaults to a quarter of a matrix's smaller side, the paper's 128 of 512 and 512 of 2048 (its 130M model has
a third). Weight decay is decoupled and applied before the step, as in torch's AdamW. The signs of P's columns are fixed
(the largest entry is positive), because later steps add to moments of an older basis and must not depend on LAPACK.
Full rank: at r >= min(m, n) nothing is projected and the scale is 1, so the step is AdamW's, bitwise. A full orthogonal
P would not be: Adam is not invariant under rotation, and the scale would still shorten the step.
The budget's learning rate is taken as it is; the paper's runs use a larger one (0.01) to make up for the scale. The
budget's target is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from baselines.block_walk import projections
from baselines.method import TrainingMethod
from ecospa import ConfigError
from ecospa.families import transformer_blocks

UPDATE_GAP = 200
SCALE = 0.25
RANK_SHARE = 4
"""The default rank is the smaller side of a matrix divided by this."""


class GaLore(TrainingMethod):
    """Trains the dense model with `GaLoreAdamW`; nothing shrinks but the optimizer's state."""

    name: ClassVar[str] = "galore"
    title = "GaLore"
    removes = "nothing"
    group = "memory-efficient training"
    reads_gradients: ClassVar[bool] = False

    def build_optimizer(self, model: nn.Module) -> GaLoreAdamW:
        """The projecting optimizer with the budget's learning rate and weight decay."""
        groups = parameter_groups(model)
        return GaLoreAdamW(groups, lr=self.budget.learning_rate, weight_decay=self.budget.weight_decay)


def parameter_groups(model: nn.Module, **options: Any) -> list[dict[str, Any]]:
    """The trainable parameters in up to three groups: not projected, (out, in) matrices, (in, out) matrices.

    Args:
        model: a model of a known family; its projections inside the blocks are projected.
        options: of `GaLoreAdamW`, for the projected groups, such as `rank`.
    """
    inside = [module for block in transformer_blocks(model).values() for module in projections(block).values()]
    matrices: dict[bool, dict[int, Tensor]] = {False: {}, True: {}}
    for module in inside:
        weight: Any = module.weight
        matrices[isinstance(module, Conv1D)][id(weight)] = weight
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": [p for p in trainable if id(p) not in matrices[False] | matrices[True]], "project": False}]
    for transposed, chosen in matrices.items():
        matching = [p for p in trainable if id(p) in chosen]
        groups.append({"params": matching, "project": True, "transposed": transposed, **options})
    return [group for group in groups if group["params"]]


class GaLoreAdamW(torch.optim.Optimizer):
    """AdamW whose moments of chosen matrices live in a low-rank subspace of the gradient.

    W <- (1 - lr wd) W - lr scale P Adam(P^T G), P the top left singular vectors of G, renewed every `update_gap` steps

    Args:
        params: parameters, or groups of them; the options below may differ per group.
        lr: learning rate.
        betas: decay rates of the first and second moment, in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled, as in AdamW.
        project: whether the matrices of a group are projected; other tensors never are.
        rank: r; None is a quarter of the smaller side, at least 1. From the smaller side on nothing is projected.
        update_gap: T, steps between two renewals of P.
        scale: alpha, factor of the projected step.
        transposed: whether the matrices are (in, out), as those of transformers' Conv1D.

    Raises:
        ConfigError: an option is outside its range.

    Source: arXiv 2403.03507, algorithm 2; decoupled decay of arXiv 1711.05101.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        project: bool = True,
        rank: int | None = None,
        update_gap: int = UPDATE_GAP,
        scale: float = SCALE,
        transposed: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "project": project, "rank": rank,
            "update_gap": update_gap, "scale": scale, "transposed": transposed,
        }  # fmt: skip
        super().__init__(params, defaults)
        for group in self.param_groups:
            _check(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; parameters without a gradient are left alone.

        Raises:
            ValueError: a gradient that gives a new projection is NaN or infinite.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None  # step() asks
        rank = projected_rank(parameter, group)
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
        if rank is not None:
            if int(state["step"]) % group["update_gap"] == 0:
                state["projection"] = projection(gradient, rank, group["transposed"])
            first = _projects_first_axis(parameter.shape, group["transposed"])
            gradient = _down(gradient, state["projection"], first)
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        # the operations of torch's AdamW in its order, so that both agree to the last bit where nothing is projected
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        beta1, beta2 = group["betas"]
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        count = state["step"].item()
        denominator = (state["exp_avg_sq"].sqrt() / (1 - beta2**count) ** 0.5).add_(group["eps"])
        size = group["lr"] / (1 - beta1**count)
        if rank is None:
            parameter.addcdiv_(state["exp_avg"], denominator, value=-size)
        else:
            step = _up(state["exp_avg"] / denominator, state["projection"], first)
            parameter.add_(step, alpha=-size * group["scale"])


def projected_rank(parameter: Tensor, group: dict[str, Any]) -> int | None:
    """Rank to which a parameter's gradient is projected, or None where it is not."""
    if not group["project"] or parameter.ndim != 2:
        return None
    smaller = min(parameter.shape)
    rank = max(1, smaller // RANK_SHARE) if group["rank"] is None else group["rank"]
    return rank if rank < smaller else None


def projection(gradient: Tensor, rank: int, transposed: bool = False) -> Tensor:
    """The basis of the subspace: singular vectors of the gradient on its smaller side, on the out side of a square one.

    P = (u_1, ..., u_r) of G = U S V^T, or (v_1, ..., v_r); the entry of largest magnitude of each is positive

    Args:
        gradient: (out, in), or (in, out) if transposed; finite.
        rank: r, in [1, min(out, in)].
        transposed: which of the two it is.

    Returns:
        (smaller side, r), orthonormal columns, in the gradient's dtype (found in float32 where that is narrower).

    Raises:
        ValueError: the gradient is NaN or infinite somewhere.

    Source: arXiv 2403.03507, equation 12 and section 4.1.
    """
    if not bool(torch.isfinite(gradient).all()):
        raise ValueError(
            f"a gradient of shape {tuple(gradient.shape)} is NaN or infinite and gives no projection; "
            "lower the learning rate, clip gradients, or skip such steps as loss scaling does"
        )
    wide = gradient if gradient.dtype == torch.float64 else gradient.float()
    first = _projects_first_axis(gradient.shape, transposed)
    left, _, right = torch.linalg.svd(wide, full_matrices=False)
    basis = (left if first else right.T)[:, :rank]
    signs = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    return (basis * signs).to(gradient.dtype).contiguous()


def _projects_first_axis(shape: torch.Size, transposed: bool) -> bool:
    return shape[0] < shape[1] or (shape[0] == shape[1] and not transposed)


def _down(gradient: Tensor, basis: Tensor, first: bool) -> Tensor:
    return basis.T @ gradient if first else gradient @ basis


def _up(moments: Tensor, basis: Tensor, first: bool) -> Tensor:
    return basis @ moments if first else moments @ basis.T


def _check(group: dict[str, Any]) -> None:
    """Refuse options outside their range."""
    for name, least in (("lr", 0.0), ("eps", 0.0), ("weight_decay", 0.0), ("scale", 0.0)):
        if not least <= group[name] < math.inf:
            raise ConfigError(f"{name} is {group[name]!r}; it must be a finite number of at least {least:.0f}")
    for name in ("rank", "update_gap"):
        value = group[name]
        if value is None and name == "rank":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1")
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise ConfigError(f"betas is {group['betas']!r}; both must lie in [0, 1)")
