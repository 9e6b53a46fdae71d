"""Nemotron of transformers: the first half of every head is rotary, plain feed-forward layer."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"nemotron": "Nemotron"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "LayerNorm1P"),
    },
    attention=AttentionLayout(rotary="halves"),
    feed_forward=(FeedForwardLayout(inputs=("up_proj",)),),
)


class NemotronCoupledAttention(LaidOutAttention):
    """Nemotron attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Nemotron (transformers)", LAYOUT, NemotronCoupledAttention)
