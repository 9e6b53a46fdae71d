"""StarCoder2 of transformers: rotary embedding with a plain feed-forward layer."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import LAYER_NORM

LAYOUT = BlockLayout(
    models={"starcoder2": "Starcoder2"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), LAYER_NORM),
    },
    attention=AttentionLayout(rotary="halves", after="residual_dropout", window="config"),
    feed_forward=(FeedForwardLayout("mlp", ("c_fc",), "c_proj", "act"),),
)


class Starcoder2CoupledAttention(LaidOutAttention):
    """StarCoder2 attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "StarCoder2 (transformers)", LAYOUT, Starcoder2CoupledAttention)
