"""Qwen2-MoE of transformers: experts, which lose the same indices, and one expert that all tokens meet."""

from __future__ import annotations

from ecospa.block_layout import EXPERTS, BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import LINEAR

LAYOUT = BlockLayout(
    models={"qwen2_moe": "Qwen2Moe"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "SparseMoeBlock MLP",
        "mlp.experts": "Experts",
        "mlp.gate": "TopKRouter",
        "mlp.shared_expert": "MLP",
        "mlp.shared_expert_gate": LINEAR,
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
    },
    attention=AttentionLayout(rotary="halves"),
    feed_forward=(EXPERTS, FeedForwardLayout("mlp.shared_expert"), FeedForwardLayout()),
    whole=frozenset({"mlp.gate.weight", "mlp.shared_expert_gate.weight"}),
)


class Qwen2MoeCoupledAttention(LaidOutAttention):
    """Qwen2-MoE attention; the router and the choice of experts stay as they are."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Qwen2-MoE (transformers)", LAYOUT, Qwen2MoeCoupledAttention)
