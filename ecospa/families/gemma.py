"""Gemma of transformers: LLaMA with its own RMS norm and head width."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"gemma": "Gemma"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
    },
    attention=AttentionLayout(rotary="halves"),
)


class GemmaCoupledAttention(LaidOutAttention):
    """Gemma attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Gemma (transformers)", LAYOUT, GemmaCoupledAttention)
