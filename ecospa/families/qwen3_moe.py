"""Qwen3-MoE of transformers: Qwen3 with experts in some layers, which lose the same indices."""

from __future__ import annotations

from ecospa.block_layout import EXPERTS, BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"qwen3_moe": "Qwen3Moe"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "SparseMoeBlock MLP",
        "mlp.experts": "Experts",
        "mlp.gate": "TopKRouter",
        **dict.fromkeys(
            ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"), "RMSNorm"
        ),
    },
    attention=AttentionLayout(rotary="halves", window="module", norms=("q_norm", "k_norm")),
    feed_forward=(EXPERTS, FeedForwardLayout()),
    whole=frozenset({"mlp.gate.weight"}),
)


class Qwen3MoeCoupledAttention(LaidOutAttention):
    """Qwen3-MoE attention; the router and the choice of experts stay as they are."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Qwen3-MoE (transformers)", LAYOUT, Qwen3MoeCoupledAttention)
