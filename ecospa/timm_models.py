"""timm models by name and plain arguments: what rebuilds one is read off the model, and nothing else is let in.

timm keeps no record of how a model was built, and much of it leaves no trace in the parameters: the activation, the
epsilon of a norm, the pooling. Layers are written as the name of their class and its settings, and are found again
among torch's and timm's own activations and norms only. timm's factory would also take a path to a pickle, an id of a
hub or a folder; no value of a checkpoint reaches those.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ecospa.dense import dense_shape
from ecospa.families import coupled_pairs
from ecospa.manifest import CheckpointError
from ecospa.pairs import PairKind
from ecospa.saved_shape import model_shape, narrow_to

ARGUMENTS = frozenset(
    "img_size patch_size in_chans num_classes global_pool embed_dim depth num_heads mlp_ratio qkv_bias qk_norm "
    "proj_bias init_values class_token pos_embed no_embed_class reg_tokens pre_norm final_norm fc_norm "
    "pool_include_prefix dynamic_img_size dynamic_img_pad drop_rate pos_drop_rate patch_drop_rate proj_drop_rate "
    "attn_drop_rate drop_path_rate norm_layer embed_norm_layer act_layer".split()
)
"""The arguments of a VisionTransformer that a checkpoint may hold."""
_LAYERS = frozenset({"norm_layer", "embed_norm_layer", "act_layer"})
_DATA = (
    "input_size test_input_size min_input_size fixed_input_size interpolation crop_pct test_crop_pct crop_mode mean "
    "std num_classes label_offset label_names pool_size first_conv classifier license"
).split()
"""Entries of `pretrained_cfg` that a checkpoint keeps: how images are prepared, never where weights come from."""


def timm_config(model: Any, model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Name and arguments that rebuild a timm model, checked by rebuilding it without memory.

    Args:
        model: a timm VisionTransformer, cut or whole.
        model_args: arguments of `timm.create_model` that cannot be read off the model.

    Returns:
        {"architecture", "model_args", "pretrained_cfg"}, all plain values.

    Raises:
        CheckpointError: an argument is not one of `ARGUMENTS`, or the rebuilt model has other parameters.
    """
    given = {name: _plain(name, value) for name, value in model_args.items()}
    prepared = model.pretrained_cfg
    tag = prepared.get("tag")
    config = {
        "architecture": prepared["architecture"] + (f".{tag}" if tag else ""),
        "model_args": {**_read(model), **given},
        "pretrained_cfg": {name: prepared[name] for name in _DATA if prepared.get(name) is not None},
    }
    architecture = config["architecture"]
    with without_weights():
        rebuilt = timm_model(config, Path(architecture))
    narrow_to(rebuilt, model_shape(model), Path(architecture))
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in rebuilt.state_dict().items()}
    if here != there:
        different = sorted(name for name in set(here) | set(there) if here.get(name) != there.get(name))
        raise CheckpointError(
            f"{architecture}: {different[0]} differs when the model is rebuilt; "
            "pass the other arguments of create_model as model_args={...}"
        )
    return config


def timm_model(config: Mapping[str, Any], source: Path) -> nn.Module:
    """The dense model that a configuration describes, with weights of its own.

    Args:
        config: of `timm_config`, or the same read from a file that anybody may have edited.
        source: the file, for the message.

    Raises:
        CheckpointError: the name is no model of timm's own, or an argument is not one that we write.
    """
    import timm

    name, arguments = config.get("architecture"), config.get("model_args", {})
    prepared = config.get("pretrained_cfg", {})
    plain = isinstance(name, str) and not set(name) & set("/\\:@ ") and ".." not in name
    if not plain or not timm.is_model(str(name)):
        raise CheckpointError(f"{source}: architecture is {name!r}; it must be the name of a model of timm's own")
    if not isinstance(arguments, dict) or not isinstance(prepared, dict):
        raise CheckpointError(f"{source}: model_args and pretrained_cfg must be objects; it was edited")
    if unknown := sorted(set(arguments) - ARGUMENTS):
        raise CheckpointError(
            f"{source}: {unknown[0]} is no argument that a checkpoint holds; it was edited, or build the model "
            "yourself and give it as model="
        )
    built = {name: _layer(value, source) if name in _LAYERS else _value(value, source) for name, value in
             arguments.items()}  # fmt: skip
    shown = {name: tuple(value) if isinstance(value, list) else value for name, value in prepared.items()
             if name in _DATA}  # fmt: skip
    try:
        model: nn.Module = timm.create_model(str(name), pretrained=False, pretrained_cfg_overlay=shown, **built)
    except (RuntimeError, TypeError, ValueError, AssertionError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{source}: timm cannot build {name} with these arguments ({error})") from error
    return model


def _read(model: Any) -> dict[str, Any]:
    """Every argument that can be read off a model."""
    first, last, embedding = model.blocks[0], model.blocks[-1], model.patch_embed
    pooling = {} if model.global_pool == "prr" else {"pool_include_prefix": model.pool_include_prefix}
    scales = {} if not hasattr(first.ls1, "gamma") else {"init_values": float(getattr(first.ls1, "init_values", 1e-5))}
    normed = not isinstance(embedding.norm, nn.Identity)
    embedding_norm = {"embed_norm_layer": _described("embed_norm_layer", embedding.norm)} if normed else {}
    return {
        "num_classes": model.num_classes,
        "img_size": list(embedding.img_size),
        "patch_size": list(embedding.patch_size),
        "in_chans": embedding.proj.in_channels,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": first.attn.num_heads,
        "mlp_ratio": _mlp_ratio(model),
        "qkv_bias": first.attn.qkv.bias is not None,
        "qk_norm": not isinstance(first.attn.q_norm, nn.Identity),
        "proj_bias": first.attn.proj.bias is not None,
        "global_pool": model.global_pool,
        "class_token": model.has_class_token,
        "reg_tokens": model.num_reg_tokens,
        "pos_embed": "none" if model.pos_embed is None else "learn",
        "no_embed_class": model.no_embed_class,
        "dynamic_img_size": model.dynamic_img_size,
        "dynamic_img_pad": embedding.dynamic_img_pad,
        "pre_norm": not isinstance(model.norm_pre, nn.Identity),
        "final_norm": not (isinstance(model.norm, nn.Identity) and isinstance(model.fc_norm, nn.Identity)),
        "fc_norm": not isinstance(model.fc_norm, nn.Identity),
        "norm_layer": _described("norm_layer", first.norm1),
        "act_layer": _described("act_layer", first.mlp.act),
        # no output in evaluation tells of these, and a model that trains on must not lose them
        "drop_rate": model.head_drop.p,
        "pos_drop_rate": model.pos_drop.p,
        "proj_drop_rate": first.attn.proj_drop.p,
        "attn_drop_rate": first.attn.attn_drop.p,
        "patch_drop_rate": getattr(model.patch_drop, "prob", 0.0),
        "drop_path_rate": getattr(last.drop_path1, "drop_prob", 0.0),
        **pooling,
        **scales,
        **embedding_norm,
    }


def _mlp_ratio(model: Any) -> float:
    """Hidden over embedding width before the first cut, such that timm, which rounds down, finds the same width."""
    dense = dense_shape(model)
    hidden = max(dense[pair.name][1] for pair in coupled_pairs(model) if pair.kind is PairKind.FFN)
    ratio = hidden / int(model.embed_dim)
    return ratio if int(model.embed_dim * ratio) == hidden else (hidden + 0.5) / int(model.embed_dim)


def _homes() -> dict[str, Any]:
    """Modules in which layers are looked for, by the prefix of their name."""
    from timm.layers import activations, norm

    return {
        "torch.activation": torch.nn.modules.activation,
        "torch.normalization": torch.nn.modules.normalization,
        "timm.activation": activations,
        "timm.norm": norm,
    }


def _described(argument: str, layer: Any) -> dict[str, Any]:
    """A layer as the name of its class and its settings.

    Raises:
        CheckpointError: it is the user's own.
    """
    kind = type(layer)
    for prefix, home in _homes().items():
        if kind.__module__ == home.__name__ and getattr(home, kind.__name__, None) is kind:
            return {"layer": f"{prefix}.{kind.__name__}", "settings": _settings(kind, layer)}
    raise CheckpointError(
        f"{argument} is {kind.__module__}.{kind.__qualname__}, which is no activation or norm of torch's or timm's: a "
        "folder holds no code. Save model.state_dict(), and build the model in your own code to load it"
    )


def _settings(kind: Callable[..., Any], layer: Any) -> dict[str, Any]:
    """Arguments of a layer's class that it keeps as plain attributes, and `affine`, which is called otherwise."""
    known = inspect.signature(kind).parameters
    values = {name: vars(layer)[name] for name in known if isinstance(vars(layer).get(name), (bool, int, float, str))}
    if "bias" in known and vars(layer).get("_parameters", {}).get("bias", layer) is None:
        values["bias"] = False
    if "affine" in known and isinstance(getattr(layer, "elementwise_affine", None), bool):
        values["affine"] = layer.elementwise_affine
    return values


def _layer(value: Any, source: Path) -> Any:
    """The class that a description names, with its settings."""
    if value is None:
        return None
    name = value.get("layer") if isinstance(value, dict) else None
    settings = value.get("settings", {}) if isinstance(value, dict) else None
    prefix, _, short = str(name).rpartition(".")
    home = _homes().get(prefix)
    kind: Any = getattr(home, short, None)
    own = isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == getattr(home, "__name__", None)
    if not own or not isinstance(settings, dict) or not set(settings) <= set(inspect.signature(kind).parameters):
        raise CheckpointError(f"{source}: {value!r} is no activation or norm of torch's or timm's; it was edited")
    return functools.partial(kind, **{name: _value(given, source) for name, given in settings.items()})


def _value(value: Any, source: Path) -> Any:
    parts = value if isinstance(value, list) else [value]
    if not all(part is None or isinstance(part, (bool, int, float, str)) for part in parts):
        raise CheckpointError(f"{source}: {value!r} is no plain value; it was edited")
    return value


def _plain(name: str, value: Any) -> Any:
    """An argument of the user's as a checkpoint holds it."""
    if name not in ARGUMENTS:
        raise CheckpointError(
            f"model_args has {name!r}, which a checkpoint cannot hold; it holds {', '.join(sorted(ARGUMENTS))}"
        )
    if name in _LAYERS and not isinstance(value, (dict, type(None))):
        from timm.layers.create_act import get_act_layer
        from timm.layers.create_norm import get_norm_layer

        kind = (get_act_layer if name == "act_layer" else get_norm_layer)(value)
        return _described(name, kind() if name == "act_layer" else kind(8))
    return list(value) if isinstance(value, tuple) else value


@contextmanager
def without_weights() -> Iterator[None]:
    """Build models on the meta device, whatever their size."""
    with torch.device("meta"), _NumbersInMemory():
        yield


class _NumbersInMemory(TorchFunctionMode):
    """Leaves `torch.linspace` on the CPU: timm up to 1.0.20 reads the rates of stochastic depth from one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        more = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **more})
