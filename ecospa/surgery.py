"""Surgery: the only module that changes a parameter; gradients, optimizer state and averages are cut with it.

Every Parameter stays the object that it was: optimizers, hooks, tied modules and user variables go on holding it. All
checks come before the first cut, so a refused plan leaves everything as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from ecospa.attention import narrow_attention
from ecospa.families import coupled_pairs, family_of
from ecospa.pairs import CoupledPair, PairKind
from ecospa.plan import PlanError, SparsityPlan

Cut = tuple[int, Int64[Tensor, " positions"]]
"""An axis and the positions along it that stay."""

_FACTORED = {
    "exp_avg_sq_row": -1,  # transformers' Adafactor: the parameter's shape without its last axis
    "exp_avg_sq_col": -2,  # without the last but one
}


class OptimizerStateError(ValueError):
    """Optimizer state that cannot be cut with its parameter; the message names optimizer, parameter and entry."""


def apply_plan(
    model: nn.Module, plan: SparsityPlan, optimizer: Any = None, followers: Iterable[nn.Module] = ()
) -> None:
    """Cut a model in place, with its gradients, its optimizer's state and its averages.

    Args:
        model: the model that the plan was made for.
        plan: what stays. An empty plan changes nothing at all.
        optimizer: optimizer that trains the model (an accelerate wrapper is fine); its state is cut with the weights.
        followers: models of the same architecture to cut alike, such as moving averages (`AveragedModel`).

    Raises:
        PlanError: the plan belongs to another model or follower.
        OptimizerStateError: the optimizer does not hold a parameter that is cut, or holds state of unknown layout.

    Source: paper, coupled sparsification: rows, columns and optimizer state are removed together.
    """
    targets = [(model, _unwrapped(optimizer))] + [(_follower(plan, follower), None) for follower in followers]
    prepared = [(target, plan.pairs_of(target), held) for target, held in targets]
    cuts = [_cuts(target, plan, pairs) for target, pairs, _ in prepared]
    for (target, _, held), parameter_cuts in zip(prepared, cuts, strict=True):
        _check_optimizer(target, held, parameter_cuts)
    for (target, pairs, held), parameter_cuts in zip(prepared, cuts, strict=True):
        for name, cut in parameter_cuts.items():
            _cut_parameter(target.get_parameter(name), cut, held)
        _update_modules(target, plan, pairs, parameter_cuts)
    if plan.kept and "torch._dynamo" in sys.modules:
        # compiled code is guarded on shapes; without a reset it falls back to eager after a few events
        sys.modules["torch._dynamo"].reset()


def _follower(plan: SparsityPlan, follower: nn.Module) -> nn.Module:
    averaged = getattr(follower, "module", None)
    prefixed = not any(name in dict(follower.named_modules()) for name in {key.rpartition(".")[0] for key in plan.kept})
    return averaged if isinstance(averaged, nn.Module) and prefixed else follower


def _unwrapped(optimizer: Any) -> Any:
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


def _cuts(model: nn.Module, plan: SparsityPlan, pairs: dict[str, CoupledPair]) -> dict[str, Cut]:
    """Per parameter the axis that is cut and the positions that stay; a fused weight gathers the cuts of its pairs."""
    removed: dict[str, tuple[int, list[Tensor]]] = {}
    for name, kept in plan.kept.items():
        pair = pairs[name]
        gone = torch.ones(pair.groups, pair.width, dtype=torch.bool, device="cpu")
        gone.scatter_(1, kept, False)
        for axis in pair.axes:
            known_axis, positions = removed.setdefault(axis.parameter, (axis.axis, []))
            if known_axis != axis.axis:
                raise PlanError(f"{axis.parameter}: two pairs cut different axes of it, which no family defines")
            positions.append(axis.index[gone].flatten())
    cuts: dict[str, Cut] = {}
    for parameter, (dimension, positions) in removed.items():
        stays = torch.ones(model.get_parameter(parameter).shape[dimension], dtype=torch.bool, device="cpu")
        stays[torch.cat(positions)] = False
        cuts[parameter] = (dimension, stays.nonzero().flatten())
    return cuts


def held_parameters(optimizer: Any) -> set[int]:
    """Identities of the parameters that an optimizer, wrapped or not, trains."""
    return {id(parameter) for group in _unwrapped(optimizer).param_groups for parameter in group["params"]}


def _check_optimizer(model: nn.Module, optimizer: Any, cuts: dict[str, Cut]) -> None:
    if optimizer is None:
        return
    held = held_parameters(optimizer)
    kind = type(optimizer).__name__
    for name, cut in cuts.items():
        parameter = model.get_parameter(name)
        if parameter.requires_grad and id(parameter) not in held:
            raise OptimizerStateError(
                f"{name}: the {kind} does not hold this parameter, so its state would go stale; "
                "give the optimizer that trains this very model"
            )
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and _state_axis(key, value, parameter, cut) is None:
                raise OptimizerStateError(
                    f"{name}: {kind} state {key!r} has shape {tuple(value.shape)}, "
                    f"the parameter {tuple(parameter.shape)}; "
                    "only state of the parameter's shape, factored rows and columns, and scalars can be cut; "
                    "use such an optimizer, or make it anew after the event"
                )


def _state_axis(key: str, value: Tensor, parameter: Tensor, cut: Cut) -> int | None:
    """Axis of a state tensor to cut; -1 leaves it as it is; None is an unknown layout."""
    axis = cut[0]
    if value.shape == parameter.shape:
        return axis
    if value.ndim == 0 or value.shape == (1,):
        return -1
    if key in _FACTORED and parameter.ndim > 1:
        dropped = _FACTORED[key] % parameter.ndim
        expected = [size for position, size in enumerate(parameter.shape) if position != dropped]
        if list(value.shape) != expected:
            return None
        return -1 if axis == dropped else axis - (axis > dropped)
    # torch's Adafactor: factored state broadcasts against the parameter
    if value.ndim == parameter.ndim and all(a in (1, b) for a, b in zip(value.shape, parameter.shape, strict=True)):
        return -1 if value.shape[axis] == 1 else axis
    return None


def _sliced(value: Tensor, axis: int, positions: Tensor) -> Tensor:
    """A copy of its own: a view would keep the whole storage alive."""
    return value.index_select(axis, positions.to(value.device)).contiguous()


@torch.no_grad()
def _cut_parameter(parameter: nn.Parameter, cut: Cut, optimizer: Any) -> None:
    axis, positions = cut
    state = optimizer.state.get(parameter, {}) if optimizer is not None else {}
    for key, value in state.items():
        if isinstance(value, Tensor) and (state_axis := _state_axis(key, value, parameter, cut)) not in (None, -1):
            state[key] = _sliced(value, state_axis, positions)
    grad, parameter.grad = parameter.grad, None
    data, dtype = _sliced(parameter.data, axis, positions), parameter.dtype
    # autograd caches a node with the old shape on the parameter; another dtype in between makes it forget
    parameter.data = torch.empty(
        0, dtype=torch.float64 if dtype != torch.float64 else torch.float32, device=data.device
    )
    parameter.data = data
    if grad is not None:
        parameter.grad = _sliced(grad, axis, positions)


def _update_modules(model: nn.Module, plan: SparsityPlan, pairs: dict[str, CoupledPair], cuts: dict[str, Cut]) -> None:
    for name, kept in plan.kept.items():
        pair = pairs[name]
        if pair.kind is not PairKind.FFN:
            family, attention = family_of(model.get_submodule(pair.block)), model.get_submodule(pair.module)
            assert family is not None  # the pair was found by its family
            narrow_attention(attention, family.attention, family.geometry(attention), pair.kind, kept)
    for parameter in cuts:
        module: Any = model.get_submodule(parameter.rpartition(".")[0])
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif hasattr(module, "nf"):  # transformers' Conv1D, weight (in, out)
            module.nx, module.nf = module.weight.shape
    if plan.kept:
        _record_widths(model)


def _record_widths(model: nn.Module) -> None:
    """Write the widths into the config of every outermost transformers model, from where a checkpoint takes them."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        config: Any = getattr(module, "config", None)
        if not hasattr(config, "to_dict") or not hasattr(module, "save_pretrained") or f"{name}.".startswith(inside):
            continue
        inside += (f"{name}.".lstrip("."),) if name else ("",)
        config.ecospa = {"version": 1, "widths": {pair.name: pair.width for pair in coupled_pairs(module)}}
