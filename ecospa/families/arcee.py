"""Arcee of transformers: LLaMA with a plain feed-forward layer."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"arcee": "Arcee"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
    },
    attention=AttentionLayout(rotary="halves"),
    feed_forward=(FeedForwardLayout(inputs=("up_proj",)),),
)


class ArceeCoupledAttention(LaidOutAttention):
    """Arcee attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Arcee (transformers)", LAYOUT, ArceeCoupledAttention)
