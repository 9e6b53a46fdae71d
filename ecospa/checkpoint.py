"""Checkpoints of models whose shapes have shrunk: safetensors and JSON, no pickle and no remote code.

A transformers model keeps its widths in `config.ecospa`, so that its own `from_pretrained` machinery, with key
conversions, sharding and tying, loads it once the modules have been built at those widths. Beside it stands
`ecospa.json` with the widths again, for models without a transformers config, and the SHA-256 of every file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ecospa.families import coupled_pairs
from ecospa.merged import separated
from ecospa.pairs import PairKind, unit_positions
from ecospa.plan import PlanError, SparsityPlan
from ecospa.surgery import add_biases, apply_plan, keep_heads, shape_of

MANIFEST = "ecospa.json"
VERSION = 1
_ALIGNMENT = 64  # bytes; what torch gives its own CPU tensors
_DATA = ("*.safetensors", "*.safetensors.index.json", "config.json")


class CheckpointError(ValueError):
    """A checkpoint that is damaged, edited, or of another model; the message names the file."""


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
        write_manifest(model, target)


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
    config = _read_json(source / "config.json")
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


def write_manifest(model: nn.Module, folder: Path) -> None:
    """Write `ecospa.json`: the model's widths and the SHA-256 of every data file of the folder."""
    files = sorted({path for pattern in _DATA for path in folder.glob(pattern)})
    added = (getattr(getattr(model, "config", None), "ecospa", None) or {}).get("biases", [])
    content = {
        "version": VERSION,
        **shape_of(model),
        "biases": added,
        "sha256": {path.name: _sha256(path) for path in files},
    }
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(folder / MANIFEST)


def verify(folder: Path) -> None:
    """Check every file of a checkpoint before anything is built from it.

    Raises:
        CheckpointError: names the file that is missing, truncated or edited.
    """
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; give the folder that save_pretrained wrote")
    manifest = _read_json(folder / MANIFEST) if (folder / MANIFEST).exists() else {"sha256": {}}
    for name, digest in manifest.get("sha256", {}).items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; copy the whole folder")
        if _sha256(path) != digest:
            raise CheckpointError(
                f"{path} is truncated or was edited after it was saved; restore it, "
                f"or delete {MANIFEST} if the edit was meant"
            )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise CheckpointError(f"{folder} holds no *.safetensors file; it is no checkpoint, or its copy is incomplete")
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); it is truncated or no safetensors file") from error


@dataclass(frozen=True)
class Shape:
    """What was cut from a model.

    Attributes:
        widths: width per pair.
        heads: key/value heads per attention module; one that is not named has them all.
        biases: projections that were given a bias which the architecture does not have.
    """

    widths: Mapping[str, int]
    heads: Mapping[str, int] = field(default_factory=dict)
    biases: tuple[str, ...] = ()


def checkpoint_shape(folder: Path) -> Shape:
    """The shape of a checkpoint; empty for a dense one that knows nothing of ecospa.

    Raises:
        CheckpointError: it is malformed.
    """
    holder = folder / (MANIFEST if (folder / MANIFEST).exists() else "config.json")
    content = _read_json(holder)
    recorded = content if holder.name == MANIFEST else content.get("ecospa", {"widths": {}})
    recorded = recorded if isinstance(recorded, dict) else {}
    counts = (recorded.get("widths"), recorded.get("heads", {}))
    for counted in counts:
        if not isinstance(counted, dict) or not all(type(count) is int and count > 0 for count in counted.values()):
            raise CheckpointError(f"{holder}: widths and heads must map names to positive whole numbers")
    return Shape(recorded["widths"], recorded.get("heads", {}), tuple(recorded.get("biases", ())))


def narrow_to(model: nn.Module, shape: Shape, source: Path) -> None:
    """Cut a model to a given shape, whatever indices; its weights are about to be replaced.

    Args:
        model: model of the same shape or a wider one.
        shape: what it becomes; pairs that are not named stay.
        source: the checkpoint, for the message.

    Raises:
        CheckpointError: the model has no such pair, or is narrower already.
    """
    pairs = {pair.name: pair for pair in coupled_pairs(model)}
    if unknown := sorted(set(shape.widths) - set(pairs)):
        raise CheckpointError(
            f"{source}: it has the pair {unknown[0]}, this model does not; it belongs to another model"
        )
    kept = {}
    for name, width in shape.widths.items():
        pair = pairs[name]
        if width > pair.width or width % pair.unit:
            raise CheckpointError(
                f"{source}: width {width} of {name} does not fit this model, whose width is {pair.width}"
            )
        groups = shape.heads.get(pair.module, pair.groups) if pair.kind is not PairKind.FFN else 1
        units = torch.arange(width // pair.unit, device="cpu").repeat(groups, 1)
        kept[name] = unit_positions(pair, units)
    try:
        keep_heads(model, {name: torch.arange(heads, device="cpu") for name, heads in shape.heads.items()})
        apply_plan(model, SparsityPlan.build(model, kept))
        _make_biases(model, shape.biases)
    except (PlanError, AttributeError) as error:
        raise CheckpointError(f"{source}: {error}") from error


def _shape_now(model: nn.Module) -> Shape:
    added = (getattr(getattr(model, "config", None), "ecospa", None) or {}).get("biases", [])
    now = shape_of(model)
    return Shape(now["widths"], now["heads"], tuple(added))


def _make_biases(model: nn.Module, names: tuple[str, ...]) -> None:
    bare = [name for name in names if model.get_submodule(name).bias is None]
    weights = {name: cast(Tensor, model.get_submodule(name).weight) for name in bare}
    # only llama's output projections lack one: a Linear, weight (out, in)
    add_biases(model, {name: weight.new_zeros(weight.shape[0]) for name, weight in weights.items()})


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
    narrow_to(rebuilt, _shape_now(model), Path(architecture))
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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; copy the whole folder") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no valid JSON ({error}); it is truncated or was edited") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; it was edited")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
