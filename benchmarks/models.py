"""The models that the experiments train from scratch."""

from __future__ import annotations

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, set_seed
from transformers.utils import logging as transformers_logging

from benchmarks.experiment import ModelSpec


def quieten() -> None:
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
    if spec.family != "gpt2":
        raise ValueError(f"family is {spec.family!r}; choose gpt2")
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
        attn_implementation="sdpa",
    )
    set_seed(seed)
    return GPT2LMHeadModel(config).to(torch.device(device))
