"""Surgery: the only module that changes a parameter; gradients, optimizer state and averages are cut with it.

Every Parameter stays the object that it was: optimizers, hooks, tied modules and user variables go on holding it. All
checks come before the first cut, then every new tensor is made, then all are put in place together: what is raised on
the way leaves everything as it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ecospa.cuttable import refuse_uncuttable
from ecospa.exactness import require_exact
from ecospa.families import coupled_pairs, refuse_joined_heads
from ecospa.journal import Change, NewEntry, NewShape, NewValues, commit
from ecospa.optimizer_state import Cut, check_state, cut_state, sliced
from ecospa.pairs import CoupledPair, PairKind
from ecospa.plan import PlanError, SparsityPlan, as_numbers
from ecospa.reshaping import narrower, recorded, shape_of, without_heads
from ecospa.wrappers import refuse_unsupported, unwrapped

__all__ = ["add_biases", "apply_plan", "keep_heads", "shape_of"]

_NOTHING = "nothing has been changed"
_BY_BLOCK = f"{_NOTHING}; apply_plan(..., by_block=True) needs room for one transformer block at a time"
_NOTHING_OF_BLOCK = "nothing of this block has been changed"


def apply_plan(
    model: nn.Module,
    plan: SparsityPlan,
    optimizer: Any = None,
    followers: Iterable[nn.Module] = (),
    by_block: bool = False,
    pairs: Sequence[CoupledPair] | None = None,
) -> None:
    """Cut a model in place, with its gradients, its optimizer's state and its averages: all of it, or nothing.

    Whatever is raised on the way, a KeyboardInterrupt too, leaves everything as it was. For that the new tensors of
    all that is cut are in memory next to the old ones for a moment: `by_block` cuts where that is too much memory.

    Args:
        model: the model that the plan was made for.
        plan: what stays. An empty plan changes nothing at all.
        optimizer: optimizer that trains the model (an accelerate wrapper is fine), or a list of those that share its
            parameters; their state is cut with the weights.
        followers: models of the same architecture to cut alike, such as moving averages (`AveragedModel`).
        by_block: cut one transformer block after the other, each of them as a whole or not at all. At most one block
            is in memory twice; what is raised leaves the blocks before it cut and the others whole, and
            `plan.remaining(model)` is what is left to do.
        pairs: all pairs of the model as they are now, where the caller has just derived them; followers have their own.

    Raises:
        PlanError: the plan is malformed, counts other parameters, or belongs to another model or follower.
        OptimizerStateError: the optimizer does not hold a parameter that is cut, or holds state of unknown layout.
        UnsupportedModelError: a block would become another function, or a weight is not here or not plain (sharded,
            replicated, offloaded, sharing its memory).

    Source: paper, coupled sparsification: rows, columns and optimizer state are removed together.
    """
    if not isinstance(plan, SparsityPlan):
        raise PlanError(f"plan is a {type(plan).__name__}; make one with plan_shrink or SparsityPlan.build")
    with _plain_mode():
        targets = [_target(model, plan, optimizer, pairs), *(_follower(one, plan) for one in followers)]
        done: list[str] = []
        try:
            for part in _parts(targets[0], by_block):
                _cut(targets, part, _NOTHING_OF_BLOCK if by_block else _BY_BLOCK)
                done.append(targets[0].pairs[part[0]].block)
        except BaseException as error:
            if done:
                error.add_note(
                    f"already cut, each as a whole: {', '.join(done)}; plan.remaining(model) is what is left"
                )
            raise
        finally:
            if done:
                _forget_old_shapes([target.model.get_parameter(name) for target in targets for name in target.cuts])


def keep_heads(model: nn.Module, kept: Mapping[str, Int64[Tensor, " kept"]], optimizer: Any = None) -> None:
    """Remove whole key/value heads, each with its query heads, from attention modules in place: all, or nothing.

    Args:
        model: model of a supported family.
        kept: attention module (`CoupledPair.module`) -> ascending numbers of the key/value heads that stay, at least
            one; modules that are not named stay whole.
        optimizer: optimizer that trains the model, or a list of them; their state is cut with the weights.

    Raises:
        PlanError: an unknown module, or numbers that are empty, out of order or out of range.
        OptimizerStateError: as for `apply_plan`.
        UnsupportedModelError: as for `apply_plan`.

    Deviation: the paper removes indices inside all heads; this serves methods that remove whole heads.
    """
    refuse_unsupported(model, needs_weights=False)
    model = unwrapped(model)
    pairs = coupled_pairs(model)
    groups = {pair.module: pair.groups for pair in pairs if pair.kind is not PairKind.FFN}
    stays = {name: _checked_heads(name, heads, groups) for name, heads in kept.items()}
    stays = {name: heads for name, heads in stays.items() if len(heads) < groups[name]}
    refuse_joined_heads(model, pairs, stays)
    affected = [pair for pair in pairs if pair.module in stays]
    if not affected:
        return
    with _plain_mode():
        cuts = _staying(model, _removed({pair.name: _gone_heads(pair, stays[pair.module]) for pair in affected}, pairs))
        refuse_uncuttable(model, cuts)
        require_exact(model, apply_plan)
        check_state(model, optimizer, cuts)
        heads = {name: len(stays.get(name, range(count))) for name, count in groups.items()}
        with _short_of_memory(_NOTHING):
            changes = [
                *_new_shapes(model, cuts, optimizer),
                *without_heads(model, affected, stays),
                *recorded(model, {pair.name: pair.width for pair in pairs}, heads),
            ]
        commit(changes)
        _forget_old_shapes([model.get_parameter(name) for name in cuts])


def add_biases(model: nn.Module, values: Mapping[str, Float[Tensor, " out"]]) -> None:
    """Add to the biases of projections, making a bias where there is none; an optimizer must be given new ones.

    Args:
        model: model of a supported family.
        values: dotted name of a projection -> (out,), added to its bias.

    Raises:
        PlanError: there is no such projection, or the shape is not that of its outputs.
        UnsupportedModelError: as for `apply_plan`.

    Deviation: the paper has no bias compensation; this serves methods that have one.
    """
    refuse_unsupported(model, needs_weights=False)
    model = unwrapped(model)
    modules = {name: _checked_projection(model, name, value) for name, value in values.items()}
    with _plain_mode():
        changes: list[Change] = []
        made = []
        for name, module in modules.items():
            value = values[name].detach().to(module.weight)
            if module.bias is None:
                changes.append(NewEntry(module._parameters, "bias", nn.Parameter(value.clone())))
                made.append(name)
            else:
                changes.append(NewValues(module.bias, module.bias.data + value))
        if made:
            shape = shape_of(model)
            changes += recorded(model, shape["widths"], shape["heads"], made)
        commit(changes)
        torch.autograd.graph.increment_version([modules[name].bias for name in modules if name not in made])


@dataclass(frozen=True)
class _Target:
    """One model that a plan cuts: the model itself or a follower."""

    model: nn.Module
    optimizer: Any
    pairs: Mapping[str, CoupledPair]
    kept: Mapping[str, Tensor]
    cuts: Mapping[str, Cut]
    widths: dict[str, int]  # as they are after the parts that are done


def _target(
    model: nn.Module, plan: SparsityPlan, optimizer: Any, pairs: Sequence[CoupledPair] | None = None
) -> _Target:
    """The model with all checks done: what is not refused here is refused nowhere."""
    refuse_unsupported(model, needs_weights=False)
    model = unwrapped(model)
    named, kept = plan.entries_for(model, pairs)
    plan.check_counts(model, named, kept)
    return _checked_target(model, optimizer, plan, named, kept)


def _follower(follower: nn.Module, plan: SparsityPlan) -> _Target:
    """A follower with all checks done; besides the pairs it may have other parameters than the model."""
    refuse_unsupported(follower, needs_weights=False)
    follower = unwrapped(follower)
    averaged = getattr(follower, "module", None)
    modules = dict(follower.named_modules())
    if isinstance(averaged, nn.Module) and not any(name.rpartition(".")[0] in modules for name in plan.kept):
        follower = unwrapped(averaged)
    return _checked_target(follower, None, plan, *plan.entries_for(follower))


def _checked_target(
    model: nn.Module,
    optimizer: Any,
    plan: SparsityPlan,
    pairs: Mapping[str, CoupledPair],
    kept: Mapping[str, Tensor],
) -> _Target:
    cuts = _cuts(model, kept, pairs)
    refuse_uncuttable(model, cuts)
    if kept:
        require_exact(model, apply_plan)
    check_state(model, optimizer, cuts)
    return _Target(model, optimizer, pairs, kept, cuts, dict(plan.widths))


def _parts(target: _Target, by_block: bool) -> list[list[str]]:
    """Names of the pairs that are cut together; no parameter belongs to two blocks."""
    if not by_block:
        return [list(target.kept)] if target.kept else []
    blocks: dict[str, list[str]] = {}
    for name in target.kept:
        blocks.setdefault(target.pairs[name].block, []).append(name)
    return list(blocks.values())


def _cut(targets: Sequence[_Target], part: Sequence[str], advice: str) -> None:
    """Cut some pairs of all models; what is old is let go before the next part begins."""
    with _short_of_memory(advice):
        changes = [change for target in targets for change in _changes(target, part)]
    commit(changes)


def _changes(target: _Target, part: Sequence[str]) -> Iterator[Change]:
    """Everything that becomes another thing when some pairs of a model are cut, with the new tensors."""
    kept = {name: target.kept[name] for name in part}
    names = {axis.parameter for name in part for axis in target.pairs[name].axes}
    yield from _new_shapes(
        target.model, {name: cut for name, cut in target.cuts.items() if name in names}, target.optimizer
    )
    yield from narrower(target.model, target.pairs, kept)
    target.widths.update({name: rows.shape[1] for name, rows in kept.items()})
    heads = {pair.module: pair.groups for pair in target.pairs.values() if pair.kind is not PairKind.FFN}
    yield from recorded(target.model, target.widths, heads)


def _new_shapes(model: nn.Module, cuts: Mapping[str, Cut], optimizer: Any) -> Iterator[Change]:
    for name, (axis, positions) in cuts.items():
        parameter = model.get_parameter(name)
        for container, key, value in cut_state(parameter, (axis, positions), optimizer):
            yield NewEntry(container, key, value)
        grad = parameter.grad
        data = sliced(parameter.data, axis, positions)
        yield NewShape(parameter, data, None if grad is None else sliced(grad, axis, positions))
        yield from _new_features(model.get_submodule(name.rpartition(".")[0]), parameter, data)


def _new_features(module: Any, parameter: nn.Parameter, data: Tensor) -> Iterator[Change]:
    """Read the shape of a projection's weight off its own attributes."""
    if parameter is not getattr(module, "weight", None) or parameter.ndim != 2:
        return
    names = ("out_features", "in_features") if isinstance(module, nn.Linear) else ("nx", "nf")
    for name, size in zip(names, data.shape, strict=True):
        if name in vars(module):
            yield NewEntry(vars(module), name, size)


def _cuts(model: nn.Module, kept: Mapping[str, Tensor], pairs: Mapping[str, CoupledPair]) -> dict[str, Cut]:
    """Per parameter the axis that is cut and the positions that stay; a fused weight gathers the cuts of its pairs."""
    gone = {}
    for name, rows in kept.items():
        gone[name] = torch.ones(pairs[name].groups, pairs[name].width, dtype=torch.bool, device="cpu")
        gone[name].scatter_(1, rows, False)
    return _staying(model, _removed(gone, pairs.values()))


def _gone_heads(pair: CoupledPair, heads: Tensor) -> Tensor:
    gone = torch.ones(pair.groups, pair.width, dtype=torch.bool, device="cpu")
    gone[heads] = False
    return gone


def _removed(gone: Mapping[str, Tensor], pairs: Iterable[CoupledPair]) -> dict[str, tuple[int, list[Tensor]]]:
    """Per parameter the axis and the positions that leave, from what leaves of every pair, (groups, width)."""
    removed: dict[str, tuple[int, list[Tensor]]] = {}
    for pair in pairs:
        for axis in pair.axes if pair.name in gone else ():
            known_axis, positions = removed.setdefault(axis.parameter, (axis.axis, []))
            if known_axis != axis.axis:
                raise PlanError(f"{axis.parameter}: two pairs cut different axes of it, which no family defines")
            positions.append(axis.index[gone[pair.name]].flatten())
    return removed


def _staying(model: nn.Module, removed: Mapping[str, tuple[int, list[Tensor]]]) -> dict[str, Cut]:
    cuts: dict[str, Cut] = {}
    for parameter, (dimension, positions) in removed.items():
        stays = torch.ones(model.get_parameter(parameter).shape[dimension], dtype=torch.bool, device="cpu")
        stays[torch.cat(positions)] = False
        cuts[parameter] = (dimension, stays.nonzero().flatten())
    return cuts


def _checked_heads(name: str, heads: Any, groups: Mapping[str, int]) -> Tensor:
    if name not in groups:
        raise PlanError(f"{name}: the model has no such attention module; it has {', '.join(list(groups)[:6])}, ...")
    stay = as_numbers(name, heads)
    inside = stay.dtype == torch.int64 and stay.ndim == 1 and len(stay) > 0
    if not inside or int(stay.min()) < 0 or int(stay.max()) >= groups[name] or bool((stay.diff() <= 0).any()):
        raise PlanError(f"{name}: kept is {stay.tolist()}; give ascending head numbers in [0, {groups[name]})")
    return stay


def _checked_projection(model: nn.Module, name: str, value: Any) -> Any:
    module: Any = dict(model.named_modules()).get(name)
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not hasattr(module, "bias"):
        raise PlanError(f"{name}: the model has no such projection")
    outputs = weight.shape[0 if isinstance(module, nn.Linear) else 1]
    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if shape != (outputs,) or not value.dtype.is_floating_point:
        raise PlanError(f"{name}: the bias has shape {shape}; the projection has {outputs} outputs")
    return module


@contextmanager
def _plain_mode() -> Iterator[None]:
    """New weights must be able to train, whatever mode the caller is in."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def _short_of_memory(advice: str) -> Iterator[None]:
    """Say what to do where there is no memory for the new tensors; none of them is in place yet."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in text:
            raise
        # of the same type: those who try again with less after running out of memory look for it
        raise type(error)(f"{text} (while new weights were made: {advice})") from error


def _forget_old_shapes(parameters: Sequence[nn.Parameter]) -> None:
    """Let nothing that knew the old shapes go on with them."""
    # a backward pass through a graph from before the cut then says so, instead of failing somewhere inside
    torch.autograd.graph.increment_version([one for one in parameters if not one.is_inference()])
    if parameters and "torch._dynamo" in sys.modules:
        # compiled code is guarded on shapes; without a reset it falls back to eager after a few events
        sys.modules["torch._dynamo"].reset()
