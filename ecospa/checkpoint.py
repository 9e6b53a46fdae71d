"""Checkpoints of models whose shapes have shrunk: safetensors and JSON, no pickle and no remote code.

A transformers model keeps its widths in `config.ecospa`, so that its own `from_pretrained` machinery, with key
conversions, sharding and tying, loads it once the modules have been built at those widths. Beside it stands
`ecospa.json` with the widths again, for models without a transformers config, and the SHA-256 of every file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ecospa.manifest import CONFIG, CheckpointError, plain_files, read_json, verify, write_manifest
from ecospa.merged import separated
from ecospa.saved_shape import Shape, checkpoint_shape, model_shape, narrow_to

_ALIGNMENT = 64  # bytes; what torch gives its own CPU tensors


def save_pretrained(
    model: nn.Module, folder: str | Path, *, model_args: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """Write a model, shrunk or not, to a folder; merged projections are written apart.

    Args:
        model: a transformers model, a timm VisionTransformer, or any module that holds a supported one.
        folder: made if it is not there.
        model_args: arguments of `timm.create_model` that cannot be read off a timm model.
        options: passed to transformers' `save_pretrained`, such as `max_shard_size`.

    Raises:
        CheckpointError: a timm model cannot be rebuilt from its name and arguments.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "save_pretrained"):
        cast(Any, model).save_pretrained(target, **options)
    else:
        from safetensors.torch import save_model

        config = timm_config(model, model_args or {}) if hasattr(model, "pretrained_cfg") else {}
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        with separated(model, copy=True):
            save_model(model, str(target / "model.safetensors"))
    with separated(model):
        write_manifest(target, plain_files(target), model_shape(model).as_json())


def from_pretrained(folder: str | Path, model: nn.Module | None = None, **options: Any) -> Any:
    """Read a model from a folder that `save_pretrained` or a trainer wrote, bitwise as it was.

    Args:
        folder: the folder.
        model: a freshly built dense model to cut to the checkpoint's widths and fill; needed for models that are
            neither transformers' nor timm's.
        options: passed to transformers' `from_pretrained`, such as `dtype` or `device_map`.

    Returns:
        The model, in evaluation mode as transformers gives it; `model` itself where it was given.

    Raises:
        CheckpointError: a file is missing, truncated or edited, a key is missing, unexpected or of another shape, or
            the model's class is not known; the message names the file.
    """
    source = Path(folder)
    verify(source)
    config = read_json(source / CONFIG)
    if model is None and "architectures" in config:
        return _load_transformers(source, config, options)
    if model is None and "architecture" in config:
        import timm

        model = timm.create_model(config["architecture"], pretrained=False, **config["model_args"]).to(_dtype(source))
    if model is None:
        raise CheckpointError(
            f"{source / 'config.json'} names no architecture; give the freshly built dense model as model="
        )
    narrow_to(model, checkpoint_shape(source), source)
    _fill(model, source)
    return model.eval()


def _load_transformers(folder: Path, config: dict[str, Any], options: dict[str, Any]) -> Any:
    import transformers

    name = (config["architectures"] or ["none"])[0]
    base: Any = getattr(transformers, name, None)
    if not isinstance(base, type):
        raise CheckpointError(
            f"{folder / 'config.json'}: transformers has no class {name}; give the dense model as model="
        )
    shape = checkpoint_shape(folder)
    kind: Any = _narrow_class(base, shape, folder) if shape.widths else base
    try:
        model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: its weights do not fit its config ({error})") from error
    model.__class__ = base
    _align(model)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := report[problem]:
            raise CheckpointError(
                f"{folder}: {problem.replace('_', ' ')}: {sorted(map(str, keys))[:3]}, ...; it is incomplete"
            )
    return model


@torch.no_grad()
def _align(model: nn.Module) -> None:
    """Move weights that lie in a mapped file, at any address, to memory of their own.

    Matrix kernels of some processors sum in another order where data is not aligned, and loading would then change the
    last bit of the logits.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()


def _narrow_class(base: Any, shape: Shape, folder: Path) -> Any:
    """`base`, built at the checkpoint's widths; name and module stay, because transformers finds key conversions by
    them."""

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, config, *args, **kwargs)
        narrow_to(self, shape, folder)

    return type(base.__name__, (base,), {"__init__": __init__, "__module__": base.__module__})


def timm_config(model: Any, model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Name and arguments that rebuild a timm model, checked by rebuilding it without memory.

    Args:
        model: a timm VisionTransformer, cut or whole.
        model_args: arguments of `timm.create_model` that cannot be read off the model.

    Returns:
        {"architecture", "model_args"}.

    Raises:
        CheckpointError: the rebuilt model has other parameters.
    """
    import timm

    attention, embedding, last = model.blocks[0].attn, model.patch_embed, model.blocks[-1]
    arguments = {
        "num_classes": model.num_classes,
        "img_size": list(embedding.img_size),
        "patch_size": list(embedding.patch_size),
        "in_chans": embedding.proj.in_channels,
        "embed_dim": model.embed_dim,
        "depth": len(model.blocks),
        "num_heads": attention.num_heads,
        "qkv_bias": attention.qkv.bias is not None,
        "qk_norm": not isinstance(attention.q_norm, nn.Identity),
        # no parameter tells of them, and a model that trains on must not lose them
        "drop_rate": model.head_drop.p,
        "pos_drop_rate": model.pos_drop.p,
        "proj_drop_rate": attention.proj_drop.p,
        "attn_drop_rate": attention.attn_drop.p,
        "patch_drop_rate": getattr(model.patch_drop, "prob", 0.0),
        "drop_path_rate": getattr(last.drop_path1, "drop_prob", 0.0),
        **model_args,
    }
    architecture = model.pretrained_cfg["architecture"]
    with torch.device("meta"):
        rebuilt = timm.create_model(architecture, pretrained=False, **arguments)
    narrow_to(rebuilt, model_shape(model), Path(architecture))
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in rebuilt.state_dict().items()}
    if here != there:
        different = sorted(name for name in set(here) | set(there) if here.get(name) != there.get(name))
        raise CheckpointError(
            f"{architecture}: {different[0]} differs when the model is rebuilt; "
            "pass the other arguments of create_model as model_args={...}"
        )
    return {"architecture": architecture, "model_args": arguments}


def _fill(model: nn.Module, folder: Path) -> None:
    from safetensors.torch import load_model

    for path in sorted(folder.glob("*.safetensors")):
        try:
            load_model(model, path)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: its weights do not fit the model ({error})") from error


def _dtype(folder: Path) -> torch.dtype:
    """The floating-point dtype of the first stored tensor that has one: timm builds float32 whatever was saved."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():
                tensor: Tensor = stored.get_tensor(name)
                if tensor.is_floating_point():
                    return tensor.dtype
    raise CheckpointError(f"{folder} holds no weights; save the model again")
