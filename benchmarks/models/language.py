"""The models that the experiments train from scratch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, set_seed
from transformers.utils import logging as transformers_logging

from baselines.initialization import SCALED, scale_residual_outputs
from benchmarks.specs.language import ModelSpec, ScaledModel
from benchmarks.specs.multiples import gated_width


def silence_transformers() -> None:
    """Keep transformers from drawing bars and repeating what it thinks of small vocabularies."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def build_model(spec: ModelSpec, seed: int, end_of_text: int = 0, device: str = "cpu") -> nn.Module:
    """A freshly initialised model: the same weights for the same seed, whatever method is to train it.

    Args:
        spec: family and sizes.
        seed: of every random generator, set here.
        end_of_text: token number.
        device: where the model is put.

    Raises:
        ValueError: a family that is not known.
    """
    if spec.family not in _BUILDERS:
        raise ValueError(f"family is {spec.family!r}; choose {' or '.join(_BUILDERS)}")
    set_seed(seed)
    return _BUILDERS[spec.family](spec, end_of_text).to(torch.device(device))


def _gpt2(spec: ModelSpec, end_of_text: int) -> nn.Module:
    config = GPT2Config(
        vocab_size=spec.vocabulary,
        n_positions=spec.positions,
        n_embd=spec.width,
        n_layer=spec.layers,
        n_head=spec.heads,
        resid_pdrop=spec.dropout,
        embd_pdrop=spec.dropout,
        attn_pdrop=spec.dropout,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        attn_implementation="sdpa",  # type: ignore[call-arg]  # of its base class
    )
    return GPT2LMHeadModel(config)


def _llama(spec: ModelSpec, end_of_text: int) -> nn.Module:
    """As in GaLore's comparison: no biases, no tying, RMS norms with an epsilon of 1e-6."""
    config = LlamaConfig(
        vocab_size=spec.vocabulary,
        max_position_embeddings=spec.positions,
        hidden_size=spec.width,
        intermediate_size=gated_width(spec.width),
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        attention_dropout=spec.dropout,
        rms_norm_eps=1e-6,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        attn_implementation="sdpa",  # type: ignore[call-arg]  # of its base class
    )
    if isinstance(spec, ScaledModel):
        setattr(config, SCALED, spec.scaled_residual_outputs)
    model = LlamaForCausalLM(config)
    scale_residual_outputs(model)
    return model


_BUILDERS: dict[str, Callable[[ModelSpec, int], nn.Module]] = {"gpt2": _gpt2, "llama": _llama}
