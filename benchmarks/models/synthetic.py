"""Models of random weights and inputs of random numbers, of any shape: for what costs the same whatever the values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.specs.multiples import hidden_width
from benchmarks.specs.synthetic import ModelShape

CLASSES = 10


def build(shape: ModelShape) -> nn.Module:
    """A model of random weights, in training mode, without dropout where its family has a switch for it.

    Raises:
        ValueError: a name that is not known.
    """
    if shape.name not in _BUILDERS:
        raise ValueError(f"model is {shape.name!r}; choose {', '.join(_BUILDERS)}")
    return _BUILDERS[shape.name](shape)


def positions(shape: ModelShape, sequence: int) -> int:
    """Positions of one example inside a model: tokens, or patches and the class token."""
    return sequence if shape.name != "vit" else (shape.length // shape.patch) ** 2 + 1


def random_batch(shape: ModelShape, examples: int, sequence: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Random tokens with themselves or classes as labels, or random images with classes.

    Args:
        shape: of the model that is to take them.
        examples: sequences or images.
        sequence: tokens of a sequence.
        generator: of the random numbers, on the CPU.
    """
    classes = torch.randint(0, CLASSES, (examples,), generator=generator)
    if shape.name == "vit":
        return {"x": torch.randn(examples, 3, shape.length, shape.length, generator=generator), "labels": classes}
    tokens = torch.randint(1, shape.vocabulary, (examples, sequence), generator=generator)
    return {"input_ids": tokens, "labels": classes if shape.name == "bert" else tokens}


def _gpt2(shape: ModelShape) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=shape.layers, n_embd=shape.width, n_head=shape.heads, n_inner=shape.hidden, n_positions=shape.length,
        vocab_size=shape.vocabulary, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def _llama(shape: ModelShape, queries: int = 1) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=shape.layers, hidden_size=shape.width, num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // queries, intermediate_size=hidden_width(shape),
        max_position_embeddings=shape.length, vocab_size=shape.vocabulary,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def _bert(shape: ModelShape) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(  # type: ignore[call-arg]  # num_labels is of its base class
        num_hidden_layers=shape.layers, hidden_size=shape.width, num_attention_heads=shape.heads,
        intermediate_size=hidden_width(shape), vocab_size=shape.vocabulary, num_labels=CLASSES,
        max_position_embeddings=shape.length, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def _vit(shape: ModelShape) -> nn.Module:
    import timm

    ratio = 4.0 if shape.hidden is None else shape.hidden / shape.width
    model: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=shape.length, patch_size=shape.patch, embed_dim=shape.width,
        depth=shape.layers, num_heads=shape.heads, num_classes=CLASSES, mlp_ratio=ratio,
    )  # fmt: skip
    return model


_BUILDERS: dict[str, Callable[[ModelShape], nn.Module]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "llama_grouped": partial(_llama, queries=2),
    "bert": _bert,
    "vit": _vit,
}
