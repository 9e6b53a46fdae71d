"""Wrappers of a model: mere ones are seen through, what holds the weights another way is refused by name.

Names of parameters and modules are those of the model itself, whether it, or a part of it, is compiled or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ecospa.config import ConfigError
from ecospa.pairs import UnsupportedModelError

_COMPILED = "_orig_mod"
"""Attribute in which torch.compile keeps the module that it compiles."""
_BEFORE_AUTOCAST = "_original_forward"
"""Attribute in which accelerate's `prepare` keeps the forward that it wraps, in mixed precision."""


class _Holder(NamedTuple):
    """A class that holds weights in a way of its own: why they cannot be cut, and the way out."""

    reason: str
    way_out: str


_SHARDED = {
    "FullyShardedDataParallel": _Holder(
        "FSDP keeps flat shards of the parameters, in which no row or column can be found",
        "cut the model first and shard the smaller one, or train it in one process",
    ),
    "FSDPModule": _Holder(
        "fully_shard (FSDP2) keeps a shard of every parameter in each process, so nobody has a whole matrix to cut",
        "cut the model first and shard the smaller one, or train it in one process",
    ),
    "DeepSpeedEngine": _Holder(
        "DeepSpeed's optimizer holds flat copies of the parameters that would keep their size",
        "cut the model first and initialise DeepSpeed with the smaller one, or train without it",
    ),
    "PipelineModule": _Holder(
        "DeepSpeed's pipeline keeps the layers in several processes", "cut the model first, or train without it"
    ),
}
_REPLICATED = {
    "DistributedDataParallel": _Holder(
        "its gradient buckets were laid out for the present shapes, and every process would have to cut alike",
        "cut the model (`.module`) first and wrap the smaller one, or train it in one process",
    ),
    "DataParallel": _Holder(
        "it copies the model to every device at every step", "hand over `.module` and train it on one device"
    ),
}


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own model behind `torch.compile`, DistributedDataParallel and DataParallel; any other as it is.

    Args:
        model: a model, wrapped or not.
    """
    while True:
        inner = model._modules.get(_COMPILED)
        if inner is None and isinstance(model, (DistributedDataParallel, DataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextmanager
def without_autocast_forward(model: nn.Module) -> Iterator[None]:
    """Hold aside, for a while, the forward under autocast that accelerate's mixed precision puts on a model.

    What it replaced stands in its place: the forward of the class, or one that was replaced on the instance before.

    Args:
        model: a model, prepared by accelerate or not.
    """
    held = {name: vars(model)[name] for name in ("forward", _BEFORE_AUTOCAST) if name in vars(model)}
    if len(held) < 2:
        yield
        return
    original = held[_BEFORE_AUTOCAST]
    for name in held:
        del vars(model)[name]
    if getattr(original, "__func__", None) is not type(model).forward:
        vars(model)["forward"] = original
    try:
        yield
    finally:
        vars(model).update(held)


def original_name(name: str) -> str:
    """Dotted name of a module or parameter without the parts that compiled modules add to it."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """`model.named_modules()` of a model as it was written: compiled modules stand for what they compile.

    Args:
        model: a model, wrapped or not.
    """
    for name, module in unwrapped(model).named_modules():
        if _COMPILED not in module._modules:
            yield original_name(name), module


def named_parameters(model: nn.Module, remove_duplicate: bool = True) -> dict[str, nn.Parameter]:
    """`dict(model.named_parameters())` with the names of the model as it was written.

    Args:
        model: a model, wrapped or not.
        remove_duplicate: name a parameter once, however many modules hold it.
    """
    found = unwrapped(model).named_parameters(remove_duplicate=remove_duplicate)
    return {original_name(name): parameter for name, parameter in found}


def refuse_sharded(model: nn.Module) -> None:
    """Refuse a model whose parameters are no whole matrices: FSDP, fully_shard, DeepSpeed, tensor parallel.

    Args:
        model: as the caller gave it, wrappers included.

    Raises:
        UnsupportedModelError: names the module or parameter, the reason and the way out.
    """
    for name, module in (("", model), *model.named_modules()):
        _refuse_class(name, module, _SHARDED)
    for name, parameter in model.named_parameters():
        if any(kind.__name__ == "DTensor" for kind in type(parameter).__mro__):
            reason = "it is a DTensor, of which this process holds a shard (tensor parallel, or FSDP2)"
            raise _refused(name, _Holder(reason, "cut the whole model first and distribute the smaller one"))
        if hasattr(parameter, "ds_id"):
            raise _refused(name, _Holder("DeepSpeed ZeRO-3 partitions it", "cut the model before deepspeed.initialize"))


def refuse_unsupported(model: nn.Module, needs_weights: bool = True) -> None:
    """Refuse a model that cannot be cut where it is: sharded, replicated, or with weights that lie elsewhere.

    Args:
        model: as the caller gave it, wrappers included; `torch.compile` is fine.
        needs_weights: False where shapes are enough: a model that is on the meta device as a whole is then fine.

    Raises:
        UnsupportedModelError: names the module or parameter, the reason and the way out.
    """
    refuse_sharded(model)
    for name, module in (("", model), *model.named_modules()):
        _refuse_class(name, module, _REPLICATED)
    absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if not absent:
        return
    offloaded = any(hasattr(module, "_hf_hook") for module in model.modules())
    if offloaded or any(not parameter.is_meta for parameter in model.parameters()):
        reason = "its values are not here (meta device): accelerate's offloading loads them for each forward pass only"
        way_out = "load the model whole (without device_map, cpu_offload or disk_offload), cut it, and offload it then"
        raise _refused(absent[0], _Holder(reason, way_out))
    if needs_weights:
        reason = "it has a shape and no values (meta device), and what to cut is read from the values"
        raise _refused(absent[0], _Holder(reason, "load the weights first; for a forecast use `python -m ecospa plan`"))


def check_one_process() -> None:
    """Refuse to run in one of several processes: each would cut by its own gradients and they would drift apart.

    Raises:
        ConfigError: torch.distributed runs with more than one process.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        if (world := torch.distributed.get_world_size()) > 1:
            raise ConfigError(f"world size is {world}; shrinking works in one process, start one")


def _refuse_class(name: str, module: nn.Module, known: dict[str, _Holder]) -> None:
    for kind in type(module).__mro__:
        if kind.__name__ in known and kind.__module__.startswith(("torch.", "deepspeed.")):
            raise _refused(name or "the model", known[kind.__name__], kind.__name__)


def _refused(name: str, holder: _Holder, kind: str = "") -> UnsupportedModelError:
    what = f"{name} is a {kind}" if kind else name
    return UnsupportedModelError(f"{what}: {holder.reason}. Way out: {holder.way_out}.")
