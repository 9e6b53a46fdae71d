"""Gemma 3 of transformers: norms of query and key heads whose weights count from one."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"gemma3": "Gemma3"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(
            (
                "input_layernorm",
                "post_attention_layernorm",
                "pre_feedforward_layernorm",
                "post_feedforward_layernorm",
                "self_attn.q_norm",
                "self_attn.k_norm",
            ),
            "RMSNorm",
        ),
    },
    attention=AttentionLayout(rotary="halves", window="module", norms=("q_norm", "k_norm"), norm_offset=1.0),
)


class Gemma3CoupledAttention(LaidOutAttention):
    """Gemma 3 attention; norms keep the denominator of the original head width."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Gemma 3 (transformers)", LAYOUT, Gemma3CoupledAttention)
