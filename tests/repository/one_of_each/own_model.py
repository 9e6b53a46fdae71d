"""A GPT-2 whose blocks have a class of their own, as in somebody's project."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Block


class OwnBlock(GPT2Block):
    """A block that no family of the library names."""


def own_model() -> GPT2LMHeadModel:
    """Return a small model of such blocks."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=32, n_positions=16))
    for block in model.transformer.h:
        block.__class__ = OwnBlock
    return model
