"""SmolLM3 of transformers: every fourth layer has no rotary embedding."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"smollm3": "SmolLM3"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
    },
    attention=AttentionLayout(rotary="halves", rotary_if="use_rope", window="module"),
)


class SmolLM3CoupledAttention(LaidOutAttention):
    """SmolLM3 attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "SmolLM3 (transformers)", LAYOUT, SmolLM3CoupledAttention)
