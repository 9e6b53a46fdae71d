"""The function of a saved model against that of the model that was saved: the same shapes are not the same function.

Weights are compared bit by bit. Then the rebuilt model runs a probe batch over the very tensors of the original, on its
device: kernels meet the same data at the same addresses, so the outputs are bitwise equal exactly if both models
compute the same. An activation, a norm or an attention function of the user's own, a changed module, a buffer that is
not saved, or a configuration that disagrees with its model shows here, and is named.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ecospa.class_swap import Swapped, original_class

_TOKENS = 16
_PLAIN = (bool, int, float, str, type(None))
_NOT_FUNCTION = frozenset("training _is_hf_initialized gradient_checkpointing grad_checkpointing name_or_path".split())


def first_difference(model: nn.Module, rebuilt: nn.Module) -> str | None:
    """Return what the rebuilt model does otherwise than the saved one; None if it gives bitwise the same.

    Training modes, hooks and random states of the process stay as they are; forward hooks of the model run once.

    Args:
        model: the model that was saved, on any device.
        rebuilt: what a load of its folder gave, on the CPU.
    """
    if (found := _different_tensor(model, rebuilt)) is not None:
        return found
    if (found := _own_attention(model)) is not None:
        return found
    batch = probe_batch(model)
    first = next(iter(model.parameters()), None)
    if batch is None or first is None or any(p.device != first.device or p.is_meta for p in model.parameters()):
        return None
    with torch.no_grad(), _quiet(model, rebuilt, first.device):
        try:
            expected = _tensors(model(**batch))
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            return _different_module(model, rebuilt)  # it wants other inputs than these: look instead of run
        try:
            found_tensors = _tensors(functional_call(rebuilt, _lent(model, rebuilt), (), batch))
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            return f"the rebuilt model cannot run: {error}"
    if len(expected) == len(found_tensors) and all(map(_same, expected, found_tensors)):
        return None
    return _different_module(model, rebuilt) or "its output differs, and no module tells why"


def probe_batch(model: Any) -> dict[str, Tensor] | None:
    """A small batch for a model, from a generator of its own; None for one whose inputs are not known.

    Args:
        model: a transformers or timm model, or any other.
    """
    generator = torch.Generator().manual_seed(0)
    first = next(iter(model.parameters()), None)
    if first is None:
        return None
    if hasattr(model, "pretrained_cfg") and hasattr(model, "patch_embed"):
        embedding = model.patch_embed
        size = embedding.img_size or (8 * embedding.patch_size[0], 8 * embedding.patch_size[1])
        image = torch.randn(1, embedding.proj.in_channels, *size, generator=generator)
        return {"x": image.to(first.device, first.dtype)}
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_dict"):
        return None
    if getattr(model, "main_input_name", "") == "pixel_values":
        pixels = _pixels(config, generator)
        return None if pixels is None else {"pixel_values": pixels.to(first.device, first.dtype)}
    try:
        words: Any = model.get_input_embeddings()
    except RuntimeError:  # a tower for texts and one for images, each with its own
        pixels, words = _pixels(config, generator), getattr(config, "text_config", None)
        if pixels is None or words is None:
            return None
        tokens = torch.randint(words.vocab_size, (1, _TOKENS), generator=generator)
        return {"input_ids": tokens.to(first.device), "pixel_values": pixels.to(first.device, first.dtype)}
    if not isinstance(words, nn.Embedding):
        return None
    length = min(_TOKENS, max(1, int(getattr(config, "max_position_embeddings", _TOKENS)) - 2))
    tokens = torch.randint(words.num_embeddings, (1, length), generator=generator).to(first.device)
    if not getattr(config, "is_encoder_decoder", False):
        return {"input_ids": tokens}
    if getattr(model, "main_input_name", "") != "input_features":
        return {"input_ids": tokens, "decoder_input_ids": tokens}
    heard = torch.randn(1, config.num_mel_bins, 2 * config.max_source_positions, generator=generator)
    return {"input_features": heard.to(first.device, first.dtype), "decoder_input_ids": tokens}


def outputs_of(model: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    """The tensors that a model gives for a batch in evaluation mode, without caches.

    Args:
        model: any model.
        batch: its inputs.
    """
    with torch.no_grad(), _quiet(model, model, next(model.parameters()).device):
        return _tensors(model(**batch))


def _pixels(config: Any, generator: torch.Generator) -> Tensor | None:
    """One image of the size that a configuration names, or that of its vision tower; None where neither does."""
    holder: Any
    for holder in (config, getattr(config, "vision_config", None)):
        if (size := getattr(holder, "image_size", None)) is not None:
            height_and_width = size if isinstance(size, (tuple, list)) else (size, size)
            return torch.randn(1, holder.num_channels, *height_and_width, generator=generator)
    return None


@contextmanager
def _quiet(model: nn.Module, rebuilt: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode of every module, and random states that are put back."""
    modes = {module: module.training for part in (model, rebuilt) for module in part.modules()}
    state = random.getstate()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.autocast(device.type, enabled=False):
        for module in modes:
            module.training = False
        try:
            yield
        finally:
            random.setstate(state)
            for module, mode in modes.items():
                module.training = mode


def _different_tensor(model: nn.Module, rebuilt: nn.Module) -> str | None:
    there = dict(rebuilt.state_dict())
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor) or value.is_meta:
            continue
        other = there.get(name)
        if not isinstance(other, Tensor) or other.shape != value.shape:
            return f"{name} is not there after loading, or has another shape"
        if other.dtype != value.dtype or not _same(value.detach().cpu(), other.detach().cpu()):
            return f"{name} has other values or another dtype after loading"
    return None


def _lent(model: nn.Module, rebuilt: nn.Module) -> dict[str, Tensor]:
    """The saved tensors of the original for the rebuilt model, and its own for what is not saved."""
    device = next(model.parameters()).device
    kept = {name: buffer.to(device) for name, buffer in rebuilt.named_buffers(remove_duplicate=False)}
    saved = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    return {**kept, **saved}


def _tensors(output: Any) -> list[Tensor]:
    """The tensors of an output, in order, without caches."""
    if isinstance(output, Tensor):
        return [output]
    if hasattr(output, "items"):
        return [tensor for name, part in output.items() if name != "past_key_values" for tensor in _tensors(part)]
    return [tensor for part in output for tensor in _tensors(part)] if isinstance(output, (tuple, list)) else []


def _same(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if torch.equal(first, second):
        return True
    if not first.is_floating_point():
        return False
    nan = first.isnan()  # a model that has diverged is saved as it is
    return torch.equal(nan, second.isnan()) and torch.equal(first[~nan], second[~nan])


def _own_attention(model: Any) -> str | None:
    """An attention or mask function that somebody registered: its name is not saved, and the code neither."""
    name = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if not isinstance(name, str) or name == "eager" or any(sign in name for sign in "/|"):
        return None
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for kind, known in (("attention", ALL_ATTENTION_FUNCTIONS), ("mask", ALL_MASK_ATTENTION_FUNCTIONS)):
        function = known[name] if name in known else None  # noqa: SIM401  # no dict
        home = getattr(function, "__module__", "transformers.") or ""
        if not home.startswith(("transformers.", "kernels.")):
            return (
                f"its {kind} function {name!r} is {home}.{getattr(function, '__name__', function)}, which is not saved"
            )
    return None


def _different_module(model: nn.Module, rebuilt: nn.Module) -> str | None:
    """The first module whose class, plain settings, unsaved buffers or hooks differ."""
    there = dict(rebuilt.named_modules())
    for name, module in model.named_modules():
        where, other = name or "the model", there.get(name)
        if other is None:
            return f"{where} ({type(module).__name__}) is not there after loading"
        if original_class(module) is not original_class(other):
            return f"{where} is a {_kind(module)}, and a {_kind(other)} after loading"
        if "forward" in vars(module) and "forward" not in vars(other):
            return f"{where}.forward was replaced on the instance; remove it (del model.{name}.forward)"
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        if not all(_code(hook).startswith("transformers.") for hook in hooks):  # which hangs its own on to read outputs
            return f"{where} has a forward hook, which is not saved"
        if found := _different_setting(where, module, other):
            return found
    extra = sorted(set(there) - set(dict(model.named_modules())))
    return f"{extra[0]} is there only after loading" if extra else None


def _different_setting(where: str, module: nn.Module, other: nn.Module) -> str | None:
    values, others = vars(module), vars(other)
    for key in sorted(set(values) & set(others) - _NOT_FUNCTION):
        mine, theirs = values[key], others[key]
        if isinstance(mine, _PLAIN) and isinstance(theirs, _PLAIN) and mine != theirs:
            return f"{where}.{key} is {mine!r}, and {theirs!r} after loading"
        if callable(mine) and not isinstance(mine, nn.Module) and _code(mine) != _code(theirs):
            return f"{where}.{key} is {_code(mine)}, and {_code(theirs)} after loading"
    for key, buffer in module._buffers.items():
        twin = other._buffers.get(key)
        if twin is None and key in module._non_persistent_buffers_set and isinstance(module, Swapped):
            continue  # merged and never cut: every index is kept, which a checkpoint need not say
        if isinstance(buffer, Tensor) and (twin is None or not _same(buffer.cpu(), twin.cpu())):
            return f"{where}.{key} is a buffer that is not saved, and has other values after loading"
    return None


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _code(function: Any) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
