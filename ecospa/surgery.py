"""Surgery: the only module that changes a parameter; gradients, optimizer state and averages are cut with it.

Every Parameter stays the object that it was: optimizers, hooks, tied modules and user variables go on holding it. All
checks come before the first cut, so a refused plan leaves everything as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ecospa.attention import narrow_attention, swap_attention
from ecospa.dense import remember_dense
from ecospa.exactness import require_exact
from ecospa.families import coupled_pairs, family_of
from ecospa.optimizer_state import Cut, check_state, cut_state, sliced
from ecospa.pairs import CoupledPair, PairKind
from ecospa.plan import PlanError, SparsityPlan
from ecospa.wrappers import unwrapped


def apply_plan(
    model: nn.Module, plan: SparsityPlan, optimizer: Any = None, followers: Iterable[nn.Module] = ()
) -> None:
    """Cut a model in place, with its gradients, its optimizer's state and its averages.

    Args:
        model: the model that the plan was made for.
        plan: what stays. An empty plan changes nothing at all.
        optimizer: optimizer that trains the model (an accelerate wrapper is fine), or a list of those that share its
            parameters; their state is cut with the weights.
        followers: models of the same architecture to cut alike, such as moving averages (`AveragedModel`).

    Raises:
        PlanError: the plan belongs to another model or follower.
        OptimizerStateError: the optimizer does not hold a parameter that is cut, or holds state of unknown layout.
        UnsupportedModelError: a block would become another function.

    Source: paper, coupled sparsification: rows, columns and optimizer state are removed together.
    """
    targets = [(unwrapped(model), optimizer)] + [(_follower(plan, unwrapped(one)), None) for one in followers]
    prepared = [(target, plan.pairs_of(target), held) for target, held in targets]
    if plan.kept:
        for target, _ in targets:
            require_exact(target, apply_plan)
    cuts = [_cuts(target, plan, pairs) for target, pairs, _ in prepared]
    for (target, _, held), parameter_cuts in zip(prepared, cuts, strict=True):
        check_state(target, held, parameter_cuts)
    for (target, pairs, held), parameter_cuts in zip(prepared, cuts, strict=True):
        if plan.kept:
            remember_dense(target, pairs.values())
        for name, cut in parameter_cuts.items():
            _cut_parameter(target.get_parameter(name), cut, held)
        _update_modules(target, plan, pairs, parameter_cuts)
    if plan.kept and "torch._dynamo" in sys.modules:
        # compiled code is guarded on shapes; without a reset it falls back to eager after a few events
        sys.modules["torch._dynamo"].reset()


def keep_heads(model: nn.Module, kept: Mapping[str, Int64[Tensor, " kept"]], optimizer: Any = None) -> None:
    """Remove whole key/value heads, each with its query heads, from attention modules in place.

    Args:
        model: model of a supported family.
        kept: attention module (`CoupledPair.module`) -> ascending numbers of the key/value heads that stay, at least
            one; modules that are not named stay whole.
        optimizer: optimizer that trains the model, or a list of them; their state is cut with the weights.

    Raises:
        PlanError: an unknown module, or numbers that are empty, out of order or out of range.
        OptimizerStateError: as for `apply_plan`.

    Deviation: the paper removes indices inside all heads; this serves methods that remove whole heads.
    """
    model = unwrapped(model)
    pairs = [pair for pair in coupled_pairs(model) if pair.kind is not PairKind.FFN]
    groups = {pair.module: pair.groups for pair in pairs}
    stays = {name: _checked_heads(name, heads, groups) for name, heads in kept.items()}
    stays = {name: heads for name, heads in stays.items() if len(heads) < groups[name]}
    removed: dict[str, tuple[int, list[Tensor]]] = {}
    for pair in pairs:
        if pair.module in stays:
            gone = torch.ones(pair.groups, dtype=torch.bool, device="cpu")
            gone[stays[pair.module]] = False
            for axis in pair.axes:
                removed.setdefault(axis.parameter, (axis.axis, []))[1].append(axis.index[gone].flatten())
    cuts = _staying(model, removed)
    check_state(model, optimizer, cuts)
    remember_dense(model, pairs)
    for name, cut in cuts.items():
        _cut_parameter(model.get_parameter(name), cut, optimizer)
    for pair in pairs:
        if pair.kind is PairKind.QK and pair.module in stays:
            family, attention = family_of(model.get_submodule(pair.block)), model.get_submodule(pair.module)
            assert family is not None  # the pair was found by its family
            geometry = family.geometry(attention)
            swap_attention(attention, family.attention, geometry)
            heads = stays[pair.module]
            attention.geometry = replace(geometry, groups=len(heads))  # type: ignore[assignment]
            if geometry.tracked:
                indices: Tensor = attention.kept_qk  # type: ignore[assignment]
                attention.kept_qk = indices[heads.to(indices.device)]
    _update_features(model, cuts)
    if stays:
        _record_shape(model)


def add_biases(model: nn.Module, values: Mapping[str, Float[Tensor, " out"]]) -> None:
    """Add to the biases of projections, making a bias where there is none; an optimizer must be given new ones.

    Args:
        model: model of a supported family.
        values: dotted name of a projection -> (out,), added to its bias.

    Raises:
        PlanError: the shape is not that of the projection's outputs.

    Deviation: the paper has no bias compensation; this serves methods that have one.
    """
    made = []
    for name, value in values.items():
        module: Any = model.get_submodule(name)
        outputs = module.weight.shape[0 if isinstance(module, nn.Linear) else 1]
        if value.shape != (outputs,):
            raise PlanError(f"{name}: the bias has shape {tuple(value.shape)}; the projection has {outputs} outputs")
    for name, value in values.items():
        module = model.get_submodule(name)
        value = value.detach().to(module.weight)
        if module.bias is None:
            module.bias = nn.Parameter(value.clone())
            made.append(name)
        else:
            with torch.no_grad():
                module.bias.add_(value)
    if made:
        _record_shape(model, made)


def _checked_heads(name: str, heads: Tensor, groups: Mapping[str, int]) -> Tensor:
    if name not in groups:
        raise PlanError(f"{name}: the model has no such attention module; it has {', '.join(list(groups)[:6])}, ...")
    heads = torch.as_tensor(heads, device="cpu")
    inside = heads.dtype == torch.int64 and heads.ndim == 1 and len(heads) > 0
    if not inside or int(heads.min()) < 0 or int(heads.max()) >= groups[name] or bool((heads.diff() <= 0).any()):
        raise PlanError(f"{name}: kept is {heads.tolist()}; give ascending head numbers in [0, {groups[name]})")
    return heads


def _follower(plan: SparsityPlan, follower: nn.Module) -> nn.Module:
    averaged = getattr(follower, "module", None)
    prefixed = not any(name in dict(follower.named_modules()) for name in {key.rpartition(".")[0] for key in plan.kept})
    return averaged if isinstance(averaged, nn.Module) and prefixed else follower


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
    return _staying(model, removed)


def _staying(model: nn.Module, removed: dict[str, tuple[int, list[Tensor]]]) -> dict[str, Cut]:
    cuts: dict[str, Cut] = {}
    for parameter, (dimension, positions) in removed.items():
        stays = torch.ones(model.get_parameter(parameter).shape[dimension], dtype=torch.bool, device="cpu")
        stays[torch.cat(positions)] = False
        cuts[parameter] = (dimension, stays.nonzero().flatten())
    return cuts


@torch.no_grad()
def _cut_parameter(parameter: nn.Parameter, cut: Cut, optimizer: Any) -> None:
    axis, positions = cut
    for state, key, value in tuple(cut_state(parameter, cut, optimizer)):
        state[key] = value
    grad, parameter.grad = parameter.grad, None
    data, dtype = sliced(parameter.data, axis, positions), parameter.dtype
    # autograd caches a node with the old shape on the parameter; another dtype in between makes it forget
    parameter.data = torch.empty(
        0, dtype=torch.float64 if dtype != torch.float64 else torch.float32, device=data.device
    )
    parameter.data = data
    if grad is not None:
        parameter.grad = sliced(grad, axis, positions)


def _update_modules(model: nn.Module, plan: SparsityPlan, pairs: dict[str, CoupledPair], cuts: dict[str, Cut]) -> None:
    for name, kept in plan.kept.items():
        pair = pairs[name]
        if pair.kind is not PairKind.FFN:
            family, attention = family_of(model.get_submodule(pair.block)), model.get_submodule(pair.module)
            assert family is not None  # the pair was found by its family
            narrow_attention(attention, family.attention, family.geometry(attention), pair.kind, kept)
    _update_features(model, cuts)
    if plan.kept:
        _record_shape(model)


def _update_features(model: nn.Module, cuts: dict[str, Cut]) -> None:
    for parameter in cuts:
        module: Any = model.get_submodule(parameter.rpartition(".")[0])
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif hasattr(module, "nf"):  # transformers' Conv1D, weight (in, out)
            module.nx, module.nf = module.weight.shape


def _record_shape(model: nn.Module, new_biases: Iterable[str] = ()) -> None:
    """Write the shape into the config of every outermost transformers model, from where a checkpoint takes it."""
    made = list(new_biases)
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        config: Any = getattr(module, "config", None)
        if not hasattr(config, "to_dict") or not hasattr(module, "save_pretrained") or f"{name}.".startswith(inside):
            continue
        prefix = f"{name}.".lstrip(".")
        inside += (prefix,)
        old = getattr(config, "ecospa", None) or {}
        own = [bias.removeprefix(prefix) for bias in made if bias.startswith(prefix)]
        config.ecospa = {"version": 1, **shape_of(module), "biases": sorted({*old.get("biases", ()), *own})}


def shape_of(model: nn.Module) -> dict[str, dict[str, int]]:
    """What a checkpoint must know to rebuild a model: width of every pair, key/value heads of every attention.

    Returns:
        {"widths": {pair: indices}, "heads": {attention module: groups}}
    """
    pairs = coupled_pairs(model)
    heads = {pair.module: pair.groups for pair in pairs if pair.kind is not PairKind.FFN}
    return {"widths": {pair.name: pair.width for pair in pairs}, "heads": heads}
