"""Phi-1 and Phi-2 of transformers: the first part of every head is rotary, plain feed-forward layer."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import DROPOUT, LAYER_NORM

LAYOUT = BlockLayout(
    models={"phi": "Phi"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm",), LAYER_NORM),
        **dict.fromkeys(("resid_dropout",), DROPOUT),
    },
    attention=AttentionLayout(output="dense", rotary="halves"),
    feed_forward=(FeedForwardLayout("mlp", ("fc1",), "fc2", "activation_fn"),),
    refused={"self_attn.qk_layernorm": "a LayerNorm of the heads would mix their indices"},
)


class PhiCoupledAttention(LaidOutAttention):
    """Phi attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Phi (transformers)", LAYOUT, PhiCoupledAttention)
