"""Models read from a folder: transformers' own loading, at the recorded widths, of the listed files and no others.

transformers follows what it finds in a folder: adapters, code, kernels of a hub. So it is shown a folder of links to
the listed files alone, and what a configuration could lead elsewhere is refused before anything is built.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.families import coupled_pairs, transformer_blocks
from ecospa.manifest import CONFIG, CheckpointError, Manifest, only_listed, read_json
from ecospa.pairs import CoupledPair
from ecospa.saved_shape import Shape, checkpoint_shape, narrow_to, recorded_shape

logger = logging.getLogger(__name__)

_ALIGNMENT = 64  # bytes; what torch gives its own CPU tensors
_PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")
_OPTIONAL_PARTS = {"add_pooling_layer": "pooler.", "use_mask_token": "mask_token"}
"""Arguments of transformers' classes that no configuration holds, and the weights that tell of them."""
_LEADS_OUT = ("auto_map", "custom_pipelines", "custom_generate")


def load_transformers(folder: Path, manifest: Manifest, options: Mapping[str, Any], into: Any = None) -> Any:
    """A transformers model of a verified folder.

    Args:
        folder: the folder.
        manifest: of `verify`.
        options: of transformers' `from_pretrained`.
        into: another class of the same architecture, such as one with a classifier; None is the class that was saved.

    Raises:
        CheckpointError: the configuration leads out of the folder or names no class, or weights are missing,
            unexpected or of another shape.
    """
    config = read_json(folder / CONFIG)
    refuse_what_leads_out(config, folder / CONFIG)
    if options.get("trust_remote_code"):
        raise CheckpointError(f"trust_remote_code is True, and {folder} is loaded without any code of its own")
    saved = _class_named((config["architectures"] or ["none"])[0], folder / CONFIG)
    base = saved if into is None else _checked_target(into, saved)
    shape = checkpoint_shape(folder)
    kind: Any = _narrow_class(base, saved, shape, folder) if shape.widths else base
    stored = _stored_names(folder, manifest)
    parts = _optional_parts(base, stored) if into is None else {}
    with only_listed(folder, manifest) as place:
        try:
            model, report = kind.from_pretrained(
                place, output_loading_info=True, **{"local_files_only": True, **parts, **options}
            )
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, OSError, ZeroDivisionError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{folder}: its weights do not fit its config ({error})".replace(str(place), str(folder))
            ) from error
    model.__class__ = base
    model.config._name_or_path = model.name_or_path = str(folder)
    _forget_mark(model.config)
    _align(model)
    _check_report(model, report, folder, into is not None, bool(options.get("ignore_mismatched_sizes")))
    return model


def known_class(config: Mapping[str, Any]) -> bool:
    """Tell whether transformers has the class that a configuration names; one of the user's own has to be given.

    Args:
        config: content of a `config.json`.
    """
    import transformers

    name = (config.get("architectures") or ["none"])[0]
    return isinstance(name, str) and isinstance(getattr(transformers, name, None), type)


def refuse_what_leads_out(config: Any, source: Path) -> None:
    """Refuse a configuration that would have code, kernels or weights come from elsewhere.

    Args:
        config: content of a `config.json`, or a part of it.
        source: the file, for the message.

    Raises:
        CheckpointError: names the entry.
    """
    if isinstance(config, list):
        for part in config:
            refuse_what_leads_out(part, source)
    if not isinstance(config, dict):
        return
    for name, value in config.items():
        hub = "attn_implementation" in name or name == "kernel_config"
        if (name in _LEADS_OUT and value) or (name == "use_pretrained_backbone" and value):
            raise CheckpointError(f"{source}: {name} is {value!r}, which would fetch what the folder does not hold")
        if hub and any(sign in str(value) for sign in "/:@\\") and (isinstance(value, str) or name == "kernel_config"):
            raise CheckpointError(f"{source}: {name} is {value!r}, which would fetch code from a hub; remove it")
        refuse_what_leads_out(value, source)


def from_config(config: Any, kind: Any = None) -> Any:
    """The model that a transformers configuration describes, with fresh weights: cut where the configuration says so.

    transformers' own `from_config` builds the full size, whatever `config.ecospa` records.

    Args:
        config: a configuration, such as `model.config` of a cut model.
        kind: class of the model; None is the first of `config.architectures`, which the first save writes.

    Raises:
        CheckpointError: no class is known, or the record fits no such model.
    """
    import copy

    own = copy.deepcopy(config)
    source = Path("config.ecospa")
    names: Any = getattr(own, "architectures", None)
    if kind is None and not names:
        raise CheckpointError("config.architectures is empty, because the model was never saved; give kind=type(model)")
    saved = kind if kind is not None else _class_named((names or ["none"])[0], source)
    recorded = getattr(own, "ecospa", None)
    model = saved(own)
    if isinstance(recorded, dict) and recorded.get("widths"):
        shape = recorded_shape(recorded, source)
        narrow_to(model, _renamed(shape, saved, coupled_pairs(model)), source)
    return model


def _class_named(name: str, source: Path) -> Any:
    import transformers

    found: Any = getattr(transformers, name, None) if isinstance(name, str) else None
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        raise CheckpointError(f"{source}: transformers has no class {name}; give the dense model as model=")
    return found


def _checked_target(into: Any, saved: Any) -> Any:
    if not isinstance(into, type) or getattr(into, "config_class", None) is not saved.config_class:
        raise CheckpointError(
            f"into is {into!r}, and the folder holds a {saved.__name__}; give another class of transformers with a "
            f"{saved.config_class.__name__}"
        )
    return into


def _renamed(shape: Shape, base: Any, pairs: Iterable[CoupledPair]) -> Shape:
    """A shape with the names of another head: the encoder is the model itself there, or a part of it."""
    found, prefix = tuple(pairs), f"{base.base_model_prefix}."
    known, modules = {pair.name for pair in found}, {pair.module for pair in found}

    def rename(name: str, known: set[str]) -> str:
        return next((c for c in (name, prefix + name, name.removeprefix(prefix)) if c in known), name)

    return Shape(
        {rename(name, known): width for name, width in shape.widths.items()},
        {rename(name, modules): heads for name, heads in shape.heads.items()},
        tuple(_like(name, known, prefix) for name in shape.biases),
    )


def _like(bias: str, new: set[str], prefix: str) -> str:
    """The name of a projection, renamed as its pairs are."""
    inside = any(name.startswith(prefix) for name in new)
    return (prefix if inside else "") + bias.removeprefix(prefix)


def _narrow_class(base: Any, saved: Any, shape: Shape, folder: Path) -> Any:
    """`base`, built at the checkpoint's widths.

    Name and module stay, because transformers finds key conversions by them.
    """

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # of the class below
        base.__init__(self, config, *args, **kwargs)
        wanted = shape if base is saved else _renamed(shape, base, coupled_pairs(self))
        narrow_to(self, wanted, folder)

    # the signature tells transformers which arguments the class takes
    __init__.__signature__ = inspect.signature(base.__init__)  # type: ignore[attr-defined]
    return type(base.__name__, (base,), {"__init__": __init__, "__module__": base.__module__})


def _stored_names(folder: Path, manifest: Manifest) -> set[str]:
    from safetensors import safe_open

    names: set[str] = set()
    for name in manifest.model_files:
        if name.endswith(".safetensors"):
            with safe_open(folder / name, framework="pt") as stored:
                names |= set(stored.keys())
    return names


def _optional_parts(base: Any, stored: set[str]) -> dict[str, bool]:
    known = inspect.signature(base.__init__).parameters
    here = {argument: sign for argument, sign in _OPTIONAL_PARTS.items() if argument in known}
    return {argument: any(sign in name for name in stored) for argument, sign in here.items()}


def _forget_mark(config: Any) -> None:
    """The mark of a manifest belongs to the folder, not to the model, which may be saved elsewhere without one."""
    own = getattr(config, "ecospa", None)
    if isinstance(own, dict) and "manifest" in own:
        config.ecospa = {name: value for name, value in own.items() if name != "manifest"}


def _check_report(model: Any, report: Mapping[str, Any], folder: Path, into: bool, mismatches: bool) -> None:
    """Refuse a load that left something out, but for the head where another head is asked for."""
    body = tuple(f"{name}." for name in transformer_blocks(model)) if into or mismatches else ()
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    left: dict[str, list[str]] = {}
    for problem in _PROBLEMS:
        names = sorted(str(key[0]) if isinstance(key, tuple) else str(key) for key in report[problem])
        allowed = into or (mismatches and problem == "mismatched_keys")
        wrong = [name for name in names if not allowed or _is_of_body(name, body, prefix, problem)]
        if wrong:
            raise CheckpointError(f"{folder}: {problem.replace('_', ' ')}: {wrong[:3]}, ...; it is incomplete")
        left[problem] = names
    fresh, out = left["missing_keys"] + left["mismatched_keys"], left["unexpected_keys"]
    if fresh or out:
        logger.warning(
            "%s -> %s: fresh, to be trained: %s; saved, but left out: %s",
            folder, type(model).__name__, ", ".join(fresh) or "nothing", ", ".join(out) or "nothing",
        )  # fmt: skip


def _is_of_body(name: str, blocks: tuple[str, ...], prefix: str, problem: str) -> bool:
    """Return whether a weight belongs to the encoder, and not to a head or a pooler."""
    if name.startswith(blocks):
        return True
    if problem == "unexpected_keys" or not prefix or any(part in name for part in _OPTIONAL_PARTS.values()):
        return False
    return name.startswith(prefix)


@torch.no_grad()
def _align(model: nn.Module) -> None:
    """Move weights that lie in a mapped file, at any address, to memory of their own.

    Matrix kernels of some processors sum in another order where data is not aligned, and loading would then change the
    last bit of the logits.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
            tensor.data = tensor.data.clone()


def stored_dtype(folder: Path, manifest: Manifest) -> torch.dtype:
    """The floating-point dtype of the first stored tensor that has one: timm builds float32 whatever was saved.

    Raises:
        CheckpointError: no tensor has one.
    """
    from safetensors import safe_open

    for file in manifest.model_files:
        if file.endswith(".safetensors"):
            with safe_open(folder / file, framework="pt") as stored:
                for name in stored.keys():
                    tensor: Tensor = stored.get_tensor(name)
                    if tensor.is_floating_point():
                        return tensor.dtype
    raise CheckpointError(f"{folder} holds no weights; save the model again")
