"""Gemma 2 of transformers: scores with a soft cap, sliding windows in every second layer."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"gemma2": "Gemma2"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(
            ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
            "RMSNorm",
        ),
    },
    attention=AttentionLayout(rotary="halves", window="module", options=(("softcap", "attn_logit_softcapping"),)),
)


class Gemma2CoupledAttention(LaidOutAttention):
    """Gemma 2 attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Gemma 2 (transformers)", LAYOUT, Gemma2CoupledAttention)
