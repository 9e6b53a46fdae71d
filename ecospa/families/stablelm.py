"""StableLM of transformers: the first part of every head is rotary."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import DROPOUT, LAYER_NORM

LAYOUT = BlockLayout(
    models={"stablelm": "StableLm"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), LAYER_NORM),
        **dict.fromkeys(("dropout",), DROPOUT),
    },
    attention=AttentionLayout(rotary="halves"),
    refused={"self_attn.qk_layernorm": "a LayerNorm of its own for every head would mix its indices"},
)


class StableLmCoupledAttention(LaidOutAttention):
    """StableLM attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "StableLM (transformers)", LAYOUT, StableLmCoupledAttention)
