"""Tiny models of every family, each with inputs, in true float64; what the tests cut and what they compare it with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import ecospa

VOCABULARY = 61


@dataclass(frozen=True)
class Sample:
    """A model kind of the zoo: how to build it, and whether it reads text or images."""

    build: Callable[[], nn.Module]
    image: bool = False
    causal: bool = False


def _gpt2(tie: bool = True, **extra: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            n_layer=2, n_embd=32, n_head=4, vocab_size=VOCABULARY, n_positions=32, tie_word_embeddings=tie,
            bos_token_id=0, eos_token_id=0, pad_token_id=0, **extra,
        )
    )  # fmt: skip


def _rotary(family: str, **extra: Any) -> nn.Module:
    import transformers

    sizes = {
        "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 32, "head_dim": 16,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    config = getattr(transformers, f"{family}Config")(**(sizes | extra))
    return getattr(transformers, f"{family}ForCausalLM")(config)


def _encoder(family: str) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{family}Config")(
        num_hidden_layers=2, hidden_size=32, intermediate_size=40, num_attention_heads=4, vocab_size=VOCABULARY,
        max_position_embeddings=40, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return getattr(transformers, f"{family}ForMaskedLM")(config)


def _vit(family: str, **extra: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{family}Config")(
        num_hidden_layers=2, hidden_size=32, intermediate_size=40, num_attention_heads=4, image_size=8, patch_size=4,
        num_labels=5, **extra,
    )  # fmt: skip
    return getattr(transformers, f"{family}ForImageClassification")(config)


def _timm(name: str, **extra: Any) -> nn.Module:
    import timm

    sizes = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 8, "patch_size": 4, "num_classes": 5}
    return timm.create_model(name, pretrained=False, **(sizes | extra))


ZOO: dict[str, Sample] = {
    "gpt2": Sample(_gpt2, causal=True),
    "gpt2-untied": Sample(lambda: _gpt2(tie=False, scale_attn_by_inverse_layer_idx=True), causal=True),
    "llama-gqa": Sample(lambda: _rotary("Llama"), causal=True),
    "llama-bias-tied": Sample(
        lambda: _rotary("Llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=True), causal=True
    ),
    "mistral": Sample(lambda: _rotary("Mistral", sliding_window=4), causal=True),
    "qwen2": Sample(lambda: _rotary("Qwen2"), causal=True),
    "qwen3": Sample(lambda: _rotary("Qwen3"), causal=True),
    "bert": Sample(lambda: _encoder("Bert")),
    "roberta": Sample(lambda: _encoder("Roberta")),
    "vit": Sample(lambda: _vit("ViT"), image=True),
    "vit-no-bias": Sample(lambda: _vit("ViT", qkv_bias=False), image=True),
    "deit": Sample(lambda: _vit("DeiT"), image=True),
    "timm-vit": Sample(lambda: _timm("vit_tiny_patch16_224"), image=True),
    "timm-deit-distilled": Sample(lambda: _timm("deit_tiny_distilled_patch16_224"), image=True),
    "timm-qk-norm": Sample(lambda: _timm("vit_tiny_patch16_224", qk_norm=True), image=True),
}


def build(kind: str, seed: int = 0) -> nn.Module:
    """A model of the zoo in float64 and evaluation mode, every parameter random (norms and biases too)."""
    torch.manual_seed(seed)
    return randomised(ZOO[kind].build())


def randomised(model: nn.Module) -> nn.Module:
    """A model in float64 and evaluation mode, every parameter random (norms and biases too)."""
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            # transformers' norm casts to float32, which would hide everything below 1e-7
            module.forward = _float64_rms_norm.__get__(module)
    return model


def _float64_rms_norm(self: Any, hidden_states: Tensor) -> Tensor:
    mean_square = hidden_states.square().mean(-1, keepdim=True)
    return self.weight * (hidden_states * torch.rsqrt(mean_square + self.variance_epsilon))


def inputs(kind: str, seed: int = 1) -> dict[str, Tensor]:
    """Two sequences, or two images, for a model of the zoo."""
    generator = torch.Generator().manual_seed(seed)
    if ZOO[kind].image:
        images = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
        return {"x" if kind.startswith("timm") else "pixel_values": images}
    return {"input_ids": torch.randint(1, VOCABULARY, (2, 9), generator=generator)}


def logits(model: nn.Module, batch: dict[str, Tensor], **options: Any) -> Tensor:
    """Logits, whatever the model wraps them in."""
    output = model(**batch, **options)
    return output if isinstance(output, Tensor) else output.logits


def token_by_token(model: Any, tokens: Tensor) -> Tensor:
    """Logits of tokens that are read one by one, from a cache of keys and values."""
    cache, steps = None, []
    for position in range(tokens.shape[1]):
        output = model(tokens[:, position : position + 1], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        steps.append(output.logits)
    return torch.cat(steps, 1)


def random_plan(model: nn.Module, seed: int) -> ecospa.SparsityPlan:
    """Random widths per pair (query/key and value apart), a random index set of its own for every group."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for pair in ecospa.coupled_pairs(model):
        count = int(torch.randint(1, pair.units + 1, (1,), generator=generator))
        rows = [torch.randperm(pair.units, generator=generator)[:count].sort().values for _ in range(pair.groups)]
        units = torch.stack(rows)
        kept[pair.name] = torch.cat([units + part * pair.units for part in range(pair.unit)], dim=1)
    return ecospa.SparsityPlan.build(model, kept)


def removed_masks(model: nn.Module, plan: ecospa.SparsityPlan) -> dict[str, Tensor]:
    """Per parameter of the dense model a 0/1 mask of what the plan leaves."""
    masks = {name: torch.ones_like(value) for name, value in model.named_parameters()}
    pairs = {pair.name: pair for pair in ecospa.coupled_pairs(model)}
    for name, kept in plan.kept.items():
        pair = pairs[name]
        for group in range(pair.groups):
            gone = sorted(set(range(pair.width)) - set(kept[group].tolist()))
            for axis in pair.axes:
                for position in axis.index[group, gone].flatten().tolist():
                    masks[axis.parameter].select(axis.axis, position).zero_()
    return masks


def zeroed(model: nn.Module, plan: ecospa.SparsityPlan) -> nn.Module:
    """The dense model with every removed entry set to zero: what the cut model must equal."""
    dense = copy.deepcopy(model)
    for module in dense.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            module.forward = _float64_rms_norm.__get__(module)
    masks = removed_masks(model, plan)
    with torch.no_grad():
        for name, parameter in dense.named_parameters():
            parameter.mul_(masks[name])
    return dense
