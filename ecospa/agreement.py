"""A model that agrees with itself, as it is saved: shapes, recorded widths and names are one thing.

A cut that was interrupted by something from outside, or by hand, leaves weights, biases and the widths that the
attention knows of at odds. And what stands around or in the way of the model's own modules (a compiled part, a forward
that was replaced on an instance) must not show in the names under which its weights are saved.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ecospa.attention import CoupledAttention
from ecospa.families import coupled_pairs
from ecospa.manifest import CheckpointError
from ecospa.merged import separated
from ecospa.saved_shape import model_shape
from ecospa.wrappers import unwrapped, without_autocast_forward


@contextmanager
def as_saved(model: nn.Module, copy: bool = False) -> Iterator[dict[str, Any]]:
    """The model's own modules under their own names, for a while.

    Compiled parts, merged projections and accelerate's forward stand aside; `config.ecospa` records the model as it is.

    Args:
        model: any model, itself not compiled.
        copy: weights of merged projections are copies.

    Yields:
        The shape that a manifest records: "widths", "heads" and "biases".
    """
    with ExitStack() as stack:
        stack.enter_context(without_autocast_forward(model))
        stack.enter_context(_uncompiled(model))
        stack.enter_context(separated(model, copy))
        with unpatched(model):
            shape = model_shape(model).as_json()
        stack.enter_context(_recorded(model, shape))
        yield shape


def check_agreement(model: nn.Module) -> None:
    """Refuse a model whose parameters, recorded widths and features are at odds.

    Args:
        model: a model of a supported family, inside of `as_saved`.

    Raises:
        CheckpointError: names the parameter and the way out.
    """
    with unpatched(model):
        pairs = coupled_pairs(model)
    covered: dict[tuple[str, int], list[torch.Tensor]] = {}
    for pair in pairs:
        for axis in pair.axes:
            covered.setdefault((axis.parameter, axis.axis), []).append(axis.index.flatten())
    for (name, axis_number), positions in covered.items():
        size, indices = model.get_parameter(name).shape[axis_number], torch.cat(positions).sort().values
        if indices.shape[0] != size or not torch.equal(indices, torch.arange(size, device=indices.device)):
            raise _disagreement(name, f"it has {size} entries along axis {axis_number}, its pairs {indices.shape[0]}")
    for name, module in model.named_modules():
        if isinstance(module, CoupledAttention) and module.geometry.tracked:
            kept, shape = module.kept_qk, module.geometry
            if tuple(kept.shape) != (shape.groups, shape.qk_width):
                raise _disagreement(f"{name}.kept_qk", f"it is {tuple(kept.shape)}, its geometry is {shape}")


def _disagreement(name: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: {reason}. The model does not agree with itself, as after a cut that was interrupted; "
        "load the last checkpoint, and cut again with ecospa.apply_plan"
    )


@contextmanager
def unpatched(model: nn.Module) -> Iterator[None]:
    """Hold aside every forward that was replaced on an instance.

    Args:
        model: any model.
    """
    held = [(module, vars(module).pop("forward")) for module in model.modules() if "forward" in vars(module)]
    try:
        yield
    finally:
        for module, forward in held:
            vars(module)["forward"] = forward


@contextmanager
def _uncompiled(model: nn.Module) -> Iterator[None]:
    """Put the modules that torch.compile wraps in the place of their wrappers."""
    held = [
        (module, name, child)
        for module in model.modules()
        for name, child in module._modules.items()
        if child is not None and unwrapped(child) is not child
    ]
    for module, name, child in held:
        module._modules[name] = unwrapped(child)
    try:
        yield
    finally:
        for module, name, child in held:
            module._modules[name] = child


@contextmanager
def _recorded(model: Any, shape: dict[str, Any]) -> Iterator[None]:
    """Have `config.ecospa` say what the model is.

    Another model may share the configuration, or a part was compiled when it was cut, or transformers' `from_config`
    built the full size.
    """
    config: Any = getattr(model, "config", None)
    old = getattr(config, "ecospa", None)
    if not isinstance(old, dict):
        yield
        return
    known = dict(model.named_modules())
    plain = [name.replace("_orig_mod.", "") for name in shape["biases"]]
    now = {**shape, "biases": [name for name in plain if getattr(known.get(name), "bias", None) is not None]}
    before = {name.replace("_orig_mod.", ""): width for name, width in old.get("widths", {}).items()}
    if before != now["widths"]:
        warnings.warn(
            "config.ecospa records other widths than the model has; it is saved as it is. transformers' from_config "
            "builds the full size of a configuration that was cut: ecospa.from_config(config) builds the cut model",
            stacklevel=5,
        )
    config.ecospa = {"version": 1, **now}
    try:
        yield
    finally:
        config.ecospa = old
