"""A tiny model of any architecture of transformers, built from its configuration class by the usual names of sizes."""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

VOCABULARY = 61
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "projection_dim"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "embedding_size", "lm_head_hidden_size"), 32),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "hidden_dim", "d_ff", "ffn_hidden_size"), 40),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size"), 40),
    **dict.fromkeys(("shared_expert_intermediate_size", "shared_intermediate_size"), 40),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("head_dim", "d_kv"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_source_positions", "max_target_positions"), 40),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
    **dict.fromkeys(("forced_eos_token_id", "forced_bos_token_id"), None),
    "vocab_size": VOCABULARY, "num_experts_per_tok": 2, "sliding_window": 4, "rotary_dim": 4, "image_size": 8,
    "patch_size": 4, "num_labels": 5, "query_pre_attn_scalar": 16, "moe_num_experts": 4, "num_mel_bins": 16,
    "pronunciation_vocab_size": 11, "shape_vocab_size": 11, "pronunciation_embed_dim": 8, "shape_embed_dim": 8,
    "max_length": 16, "max_depth": 3, "xpath_unit_hidden_size": 4, "num_frames": 2, "tubelet_size": [2, 4, 4],
}  # fmt: skip
LARGEST = 300_000
"""Parameters above which a model is not tiny: a size of it has a name that is not listed here."""


class NotTiny(Exception):
    """An architecture that the sizes above do not make small, or that cannot be built or run from them alone."""


def tiny_model(model_class: Any, dtype: torch.dtype = torch.float64, **extra: Any) -> nn.Module:
    """A model in evaluation mode, every parameter that trains random (norms and biases too).

    Args:
        model_class: class of transformers.
        dtype: of its parameters.
        extra: fields of its configuration.

    Raises:
        NotTiny: with the reason.
    """
    try:
        sizes = _sizes(model_class.config_class()) | extra
        with torch.device("meta"):
            size = sum(p.numel() for p in model_class(model_class.config_class(**copy.deepcopy(sizes))).parameters())
        if size > LARGEST:
            raise NotTiny(f"it has {size} parameters")
        torch.manual_seed(0)
        model = model_class(model_class.config_class(**sizes))
    except NotTiny:
        raise
    except Exception as error:  # whatever a configuration raises that needs other values
        raise NotTiny(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    model = model.to(dtype).eval()
    if dtype == torch.float64 and getattr(model.config, "_experts_implementation", None) is not None:
        model.set_experts_implementation("eager")  # grouped products do not know float64
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # tables of sines do not
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def _sizes(default: Any) -> dict[str, Any]:
    """Small values for the fields that a configuration has, and for those of its parts."""
    from transformers import PretrainedConfig

    sizes = {name: value for name, value in SIZES.items() if hasattr(default, name)}
    parts = {name: value for name, value in vars(default).items() if isinstance(value, PretrainedConfig)}
    return sizes | {name: _sizes(part) for name, part in parts.items()}


def tiny_batch(model: Any, seed: int = 1) -> dict[str, Tensor]:
    """Two images, sounds or sequences, and what else the model must be given besides."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(parameter.dtype for parameter in model.parameters())
    tokens = torch.randint(1, VOCABULARY, (2, 9), generator=generator)
    images, config = torch.randn(2, 3, 8, 8, generator=generator, dtype=dtype), model.config
    if "pixel_values" in (name := model.main_input_name):
        batch = {
            "pixel_values": images if not hasattr(config, "tubelet_size") else images[:, None].repeat(1, 2, 1, 1, 1)
        }
    elif name == "input_ids":
        batch = {"input_ids": tokens}
    else:
        frames = 2 * config.max_source_positions if hasattr(config, "max_source_positions") else 16
        bins = getattr(config, "num_mel_bins", 16)
        shape = (2, bins, frames) if name == "input_features" else (2, frames, bins)
        batch = {name: torch.randn(shape, generator=generator, dtype=dtype)}
    if getattr(config, "is_encoder_decoder", False):
        batch["decoder_input_ids"] = tokens[:, :5]
    if hasattr(config, "vision_config") and hasattr(config, "text_config") and "logits_per_image" in _outputs(model):
        batch["pixel_values"] = images
    return batch


def _outputs(model: Any) -> str:
    return str(inspect.signature(type(model).forward).return_annotation) + (type(model).forward.__doc__ or "")


class _Float64Only(TorchFunctionMode):
    """float64 wherever a library asks for float32, which would hide every difference below 1e-7."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.float:
            return args[0].double()
        wide = [torch.float64 if value is torch.float32 else value for value in args]
        return function(
            *wide, **{name: torch.float64 if v is torch.float32 else v for name, v in (kwargs or {}).items()}
        )


@contextlib.contextmanager
def true_float64() -> Iterator[None]:
    """Compute norms, softmax and rotary embeddings in float64, too."""
    with _Float64Only(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tiny_output(model: Any, batch: dict[str, Tensor], **options: Any) -> Tensor:
    """The first floating-point output of a model: logits, or hidden states."""
    torch.manual_seed(1)  # for those that mask at random, in evaluation mode too
    wide = next(model.parameters()).dtype == torch.float64
    with true_float64() if wide else contextlib.nullcontext():
        output = model(**batch, **options)
    for name in ("logits", "logits_per_image", "last_hidden_state", "prediction_logits"):
        if getattr(output, name, None) is not None:
            value: Tensor = output[name]
            return value
    raise NotTiny(f"its output has {', '.join(output)}")
