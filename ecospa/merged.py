"""Merged projections: queries, keys and values, gate and up as one matrix product each, for inference only.

A block reads its input once instead of three times and makes fewer calls. Whether that is faster is a matter of widths,
batch and machine, so nothing merges by itself and the caller chooses by kind; the experiment inference_speed measures
it in its mode "merged". Models whose checkpoints hold these projections as one anyway (GPT-2, timm) stay as they are.
The function of the model does not change, and no weight is held twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, cast, get_args

from torch import nn

from ecospa.attention import CoupledAttention, swap_attention
from ecospa.class_swap import original_class, swapped_class
from ecospa.config import ConfigError
from ecospa.families import coupled_pairs, known_family, transformer_blocks, unsupported
from ecospa.projections import MERGED, Mergeable, MergedLinear, MergeKind

_KINDS: tuple[MergeKind, ...] = get_args(MergeKind)


def merge_projections(model: nn.Module, only: Collection[MergeKind] = _KINDS) -> None:
    """Merge projections that read the same input, in place; `split_projections` undoes it.

    y = [W_Q; W_K; W_V] x and y = [W_gate; W_up] x, each by one product. A merged model reads and generates; it is
    saved as if it were not merged, and refuses to be cut or trained. Optimizers and hooks go on holding the parameters
    of the projections, which have no entries until they are split again.

    Args:
        model: a model of a supported family, cut or whole, in evaluation mode.
        only: what to merge: "qkv" (queries, keys, values), "gate_up" (gated feed-forward layers). What the model does
            not have, or has as one already, is left.

    Raises:
        ConfigError: `only` names something else.
        UnsupportedModelError: the model is in training mode or cannot be cut, or projections differ in device, dtype
            or bias or carry hooks; the message names the module. Nothing has been merged then.

    Source: none in the paper; the merge is usual in inference engines.
    """
    if unknown := sorted(set(only) - set(_KINDS)):
        raise ConfigError(f"only is {tuple(only)}; {unknown[0]!r} is unknown, choose from {', '.join(_KINDS)}")
    if model.training:
        raise unsupported("", "it is in training mode", "call model.eval() first; merged models are for inference")
    with separated(model):
        coupled_pairs(model)
    found = [
        (block, f"{name}.{mergeable.module}".lstrip("."), mergeable)
        for name, block in transformer_blocks(model).items()
        for mergeable in _mergeable(block)
        if mergeable.kind in only and not _is_merged(block.get_submodule(mergeable.module))
    ]
    for block, name, mergeable in found:
        _check(block.get_submodule(mergeable.module), name, mergeable)
    for block, _, mergeable in found:
        _merge(block, mergeable)


def split_projections(model: nn.Module) -> None:
    """Undo `merge_projections` in place: the same modules and parameters as before, with their entries back.

    Args:
        model: any model; one without merged projections stays as it is.
    """
    for module, merged in _merged(model):
        merged.fill(copy=True)
        _put_apart(module, merged)
        if merged.swapped:
            module.__class__ = original_class(module)
            for name in ("kept_qk", "geometry"):
                if hasattr(module, name):
                    delattr(module, name)


@contextmanager
def separated(model: nn.Module, copy: bool = False) -> Iterator[None]:
    """Hold merged projections apart for a while: for what looks at names, shapes or weights one by one.

    Args:
        model: any model.
        copy: their weights are copies, not views of the merged ones; for what asks whose memory they are.
    """
    held = _merged(model)
    for module, merged in held:
        merged.fill(copy)
        _put_apart(module, merged)
    try:
        yield
    finally:
        for module, merged in held:
            _put_together(module, merged)
            merged.release()


def _merged(model: nn.Module) -> list[tuple[nn.Module, MergedLinear]]:
    children = [(module, module._modules.get(MERGED)) for module in model.modules()]
    return [(module, merged) for module, merged in children if isinstance(merged, MergedLinear)]


def _is_merged(module: nn.Module) -> bool:
    return isinstance(module._modules.get(MERGED), MergedLinear)


def _mergeable(block: nn.Module) -> tuple[Mergeable, ...]:
    return known_family(block).mergeable


def _check(module: nn.Module, name: str, mergeable: Mergeable) -> None:
    """Refuse what one product could not do in the same way."""
    kind = original_class(module)
    if kind.__name__ not in mergeable.classes or "forward" in vars(module):
        raise unsupported(name, f"{kind.__module__}.{kind.__qualname__} has a forward of its own")
    parts = [cast(nn.Linear, getattr(module, part)) for part in mergeable.projections]
    traits = {(part.weight.device, part.weight.dtype, part.bias is None) for part in parts}
    if len(traits) > 1:
        raise unsupported(name, f"{', '.join(mergeable.projections)} differ in device, dtype or bias")
    if any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in parts):
        raise unsupported(name, f"a hook hangs on one of {', '.join(mergeable.projections)}", "remove it first")


def _merge(block: nn.Module, mergeable: Mergeable) -> None:
    module = block.get_submodule(mergeable.module)
    order = tuple(module._modules)
    swapped = _swap(block, module, mergeable)
    parts = [cast(nn.Linear, getattr(module, part)) for part in mergeable.projections]
    _put_together(module, MergedLinear(mergeable.projections, parts, order, swapped))


def _swap(block: nn.Module, module: Any, mergeable: Mergeable) -> bool:
    """Give the module the forward that reads merged projections; False if it has it already."""
    if mergeable.forward is not None:
        module.__class__ = swapped_class(type(module), mergeable.forward)
        return True
    if isinstance(module, CoupledAttention):
        return False
    family = known_family(block)
    geometry = family.geometry(module)
    swap_attention(module, family.attention, geometry, persistent=False)
    module.geometry = geometry
    return True


def _put_together(module: nn.Module, merged: MergedLinear) -> None:
    for part in merged.names:
        delattr(module, part)
    module.add_module(MERGED, merged)


def _put_apart(module: nn.Module, merged: MergedLinear) -> None:
    delattr(module, MERGED)
    for name, part in zip(merged.names, merged.parts, strict=True):
        module.add_module(name, part)
    for name in merged.order:  # the order of parameters, by which optimizers are saved
        module._modules[name] = module._modules.pop(name)
