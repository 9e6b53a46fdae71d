"""Checkpoints of models whose shapes have shrunk: safetensors and JSON, no pickle and no remote code.

A transformers model keeps its widths in `config.ecospa`, so that its own `from_pretrained` machinery, with key
conversions, sharding and tying, loads it once the modules have been built at those widths. Next to it stands
`ecospa.json` with the widths again, for models without a transformers config, and the SHA-256 of every file. A folder
is replaced as a whole, and only by a model that was loaded from it and found to be the same function.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ecospa.agreement import as_saved, check_agreement
from ecospa.filling import fill
from ecospa.folders import recover, replacing
from ecospa.loading import from_config, known_class, load_transformers, stored_dtype
from ecospa.manifest import (
    CONFIG,
    MANIFEST,
    CheckpointError,
    Manifest,
    read_json,
    read_manifest,
    write_manifest,
)
from ecospa.manifest import verify as verified
from ecospa.probe import first_difference
from ecospa.saved_shape import checkpoint_shape
from ecospa.timm_models import timm_config, timm_model
from ecospa.wrappers import unwrapped

__all__ = ["CheckpointError", "from_config", "from_pretrained", "save_pretrained"]

_STANDARD = re.compile(
    r"(config|generation_config)\.json|model(\.\w+)?(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?|"
    r"model\.safetensors\.index\.\w+\.json|modeling_ecospa_\w+\.py"
)
"""Names that transformers gives to the parts of a model."""


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    model_args: Mapping[str, Any] | None = None,
    verify: bool = True,
    **options: Any,
) -> None:
    """Write a model, shrunk or not, to a folder; merged projections are written apart, compiled parts by their names.

    The folder is replaced as a whole when everything has been written and checked: whoever reads it, and whenever the
    process dies, finds the old model or the new one. Files in it that belong to no model (tokenizer, README, logs,
    other folders) stay. What is written is loaded again and compared: weights bit by bit, and the outputs for a small
    probe batch. That takes the time of a load and the memory of a second copy of the model, on the CPU.

    Args:
        model: a transformers model, a timm VisionTransformer, or any module that holds a supported one.
        folder: made if it is not there.
        model_args: arguments of `timm.create_model` that cannot be read off a timm model.
        verify: load what was written and compare it; False saves the time and the memory, and trusts.
        options: passed to transformers' `save_pretrained`, such as `max_shard_size`.

    Raises:
        CheckpointError: the model does not agree with itself, or what was written is another function, with what
            differs; or the place is a link, full, or cannot be written. The folder is as it was then.
    """
    if options.get("push_to_hub"):
        raise CheckpointError("push_to_hub is True; save to a folder first, then call huggingface_hub.upload_folder")
    if not options.get("is_main_process", True):
        return  # another process writes
    model, target = unwrapped(model), Path(folder)
    with as_saved(model, copy=not hasattr(model, "save_pretrained")) as shape:
        check_agreement(model)
        config = timm_config(model, model_args or {}) if _is_timm(model) else {}
        with replacing(target, belongs_to_model(target)) as side:
            _write(model, side, config, options)
            write_manifest(side, (path.relative_to(side).as_posix() for path in side.rglob("*")), shape)
            if verify and (difference := _difference(model, side, options)) is not None:
                raise CheckpointError(
                    f"{target} is as it was: the model that would be loaded from it is another function than the one "
                    f"that is saved. {difference[0].upper()}{difference[1:]}. Change the model so that its "
                    "configuration says it all; verify=False saves it nevertheless"
                )


def from_pretrained(
    folder: str | Path, model: nn.Module | None = None, *, into: type[nn.Module] | None = None, **options: Any
) -> Any:
    """Read a model from a folder that `save_pretrained` or a trainer wrote, bitwise as it was.

    Exactly the files that the manifest lists are read, and nothing outside of the folder.

    Args:
        folder: the folder.
        model: a freshly built dense model to cut to the checkpoint's widths and fill; needed for models that are
            neither transformers' nor timm's.
        into: another transformers class of the same architecture, such as `BertForTokenClassification` for the folder
            of a language model: the encoder is read, the head is fresh. A log line says what is.
        options: passed to transformers' `from_pretrained`, such as `dtype`, `device_map`, or `num_labels`.

    Returns:
        The model, in evaluation mode as transformers gives it; `model` itself where it was given.

    Raises:
        CheckpointError: a file is missing, truncated or edited, a key is missing, unexpected or of another shape, or
            the model's class is not known; the message names the file.
    """
    source = Path(folder)
    recover(source)
    return _loaded(source, verified(source, model_only=True), model, into, options)


def _loaded(
    source: Path, manifest: Manifest, model: nn.Module | None, into: type[nn.Module] | None, options: Mapping[str, Any]
) -> Any:
    """Read a folder whose files are known to be those of its manifest."""
    config = read_json(source / CONFIG)
    if model is not None and into is not None:
        raise CheckpointError("model and into are both given; give the model to fill, or the class to build")
    if model is None and "architectures" in config:
        return load_transformers(source, manifest, options, into)
    if into is not None:
        raise CheckpointError(f"into is {into!r}, and {source} holds no transformers model")
    if model is None and "architecture" not in config:
        raise CheckpointError(f"{source / CONFIG} names no architecture; give the freshly built dense model as model=")
    if model is None:
        model = timm_model(config, source / CONFIG).to(stored_dtype(source, manifest))
    fill(model, source, manifest, checkpoint_shape(source))
    return model.eval()


def _is_timm(model: nn.Module) -> bool:
    return hasattr(model, "pretrained_cfg") and not hasattr(model, "save_pretrained")


def belongs_to_model(target: Path) -> Callable[[str], bool]:
    """Return a test by name for entries of a folder that belong to the model in it, and go when it is replaced.

    Args:
        target: the folder, which need not be there.
    """
    listed: set[str] = set()
    if (target / MANIFEST).is_file():
        with suppress(CheckpointError):  # a damaged one is replaced
            manifest = read_manifest(target)
            listed = set(manifest.model_files) if manifest is not None else set()
    return lambda name: name in listed or name == MANIFEST or _STANDARD.fullmatch(name) is not None


def _write(model: nn.Module, side: Path, config: dict[str, Any], options: Mapping[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    try:
        if hasattr(model, "save_pretrained"):
            cast(Any, model).save_pretrained(side, **options)
        else:
            (side / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
            save_model(model, str(side / "model.safetensors"))
    except SafetensorError as error:
        raise CheckpointError(f"{side.parent} cannot hold the weights ({error}); nothing was changed") from error


def _difference(model: nn.Module, side: Path, options: Mapping[str, Any]) -> str | None:
    """Return how a load of the folder differs; None if it does not, or can only be filled into the user's class."""
    manifest, config = read_manifest(side), read_json(side / CONFIG)
    loading: dict[str, Any] = {"variant": options["variant"]} if options.get("variant") else {}
    if "architectures" in config and known_class(config):
        if implementation := cast(Any, model).config._attn_implementation:
            loading["attn_implementation"] = implementation
    elif "architectures" in config or "architecture" not in config:
        return None
    assert manifest is not None  # it was written a moment ago, with the digests of these files
    with torch.random.fork_rng(devices=[]):
        rebuilt = _loaded(side, manifest, None, None, loading)
    return first_difference(model, rebuilt)
