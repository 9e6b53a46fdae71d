"""A model of a given architecture without weights: built from a configuration on the meta device, whatever its size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.config import ConfigError
from ecospa.manifest import CONFIG, MANIFEST, read_json
from ecospa.saved_shape import Shape, checkpoint_shape, narrow_to, recorded_shape
from ecospa.timm_models import timm_model, without_weights

_TIMM = "timm/"


def empty_model(name: str) -> nn.Module:
    """A model on the meta device, in training mode; a configuration that says it was cut gives the cut model.

    Args:
        name: a folder with a `config.json` or that file, an id of the Hugging Face Hub, or `timm/` and the name of a
            timm model.

    Raises:
        ConfigError: there is no such configuration.
        CheckpointError: it is damaged, or its widths fit no such model.
    """
    if name.startswith(_TIMM):
        return _timm_model(name.removeprefix(_TIMM)).train()
    place = Path(name)
    path = place / CONFIG if place.is_dir() else place
    if path.is_file() and "architecture" in (described := read_json(path)):
        with without_weights():
            return _narrowed(timm_model(described, path), place).train()
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"MODEL is {name!r}: no configuration found ({str(error).splitlines()[0]}); give a folder with a "
            "config.json, an id of the Hugging Face Hub (needs a network once), or timm/NAME"
        ) from error
    with without_weights():
        model: nn.Module = class_of(config)(config)
    return _narrowed(model, Path(name)).train()


def _narrowed(model: nn.Module, place: Path) -> nn.Module:
    """A dense model cut to what its folder or its own configuration records."""
    recorded = getattr(getattr(model, "config", None), "ecospa", None)
    shape = Shape({})
    if (place / MANIFEST).exists():
        shape = checkpoint_shape(place)
    elif isinstance(recorded, dict) and "widths" in recorded:
        shape = recorded_shape(recorded, place)
    narrow_to(model, shape, place)
    return model


def empty_batch(model: nn.Module, examples: int, sequence: int) -> dict[str, Tensor]:
    """Inputs and labels for a model on the meta device.

    Args:
        model: of `empty_model`.
        examples: sequences or images.
        sequence: tokens per sequence; images have the size of the model's configuration.
    """
    config: Any = model.config
    if getattr(model, "main_input_name", "input_ids") == "pixel_values":
        size = config.image_size
        pixels = torch.empty(examples, config.num_channels, size, size, device="meta")
        return {"pixel_values": pixels, "labels": torch.zeros(examples, dtype=torch.int64, device="meta")}
    tokens = torch.zeros(examples, sequence, dtype=torch.int64, device="meta")
    per_token = any(word in type(model).__name__ for word in ("LM", "CausalLM"))
    return {"input_ids": tokens, "labels": tokens if per_token else tokens[:, 0].contiguous()}


def tokens_of_image(model: nn.Module) -> int | None:
    """Patches and class tokens of one image; None for a model of text."""
    embeddings = getattr(model, "pos_embed", None)  # timm
    if embeddings is None:
        embeddings = next((p for name, p in model.named_parameters() if name.endswith("position_embeddings")), None)
    return None if embeddings is None else int(embeddings.shape[1])


def _timm_model(name: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"MODEL is {_TIMM}{name}; install timm: pip install ecospa[vision]") from error
    if not timm.is_model(name):
        raise ConfigError(f"MODEL is {_TIMM}{name}; timm has no such model: see timm.list_models('vit*')")
    with without_weights():
        model: nn.Module = timm.create_model(name, pretrained=False)
    return model


def class_of(config: Any) -> Any:
    """The class that a transformers configuration names, or else a language model's.

    Args:
        config: of transformers.

    Raises:
        ConfigError: it names none, and is no language model's.
    """
    import transformers

    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    known = transformers.AutoModelForCausalLM._model_mapping
    if type(config) not in known:
        raise ConfigError(
            f"MODEL has no architectures in its config, and {type(config).__name__} is no language model's; name the "
            'class there, such as "architectures": ["BertForMaskedLM"]'
        )
    return known[type(config)]
