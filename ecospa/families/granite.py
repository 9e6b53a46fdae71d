"""Granite of transformers: LLaMA with multipliers on scores and residuals."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"granite": "Granite"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
    },
    attention=AttentionLayout(rotary="halves"),
)


class GraniteCoupledAttention(LaidOutAttention):
    """Granite attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Granite (transformers)", LAYOUT, GraniteCoupledAttention)
