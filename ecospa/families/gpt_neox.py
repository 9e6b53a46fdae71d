"""GPT-NeoX and Pythia of transformers: queries, keys and values of a head side by side, a part of it rotary."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import DROPOUT, LAYER_NORM

LAYOUT = BlockLayout(
    models={"gpt_neox": "GPTNeoX"},
    parts={
        "": "Layer",
        "attention": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), LAYER_NORM),
        **dict.fromkeys(("post_attention_dropout", "post_mlp_dropout"), DROPOUT),
    },
    attention=AttentionLayout(("query_key_value",), per_head=True, output="dense", width="head_size", rotary="halves"),
    attentions=("attention",),
    feed_forward=(FeedForwardLayout("mlp", ("dense_h_to_4h",), "dense_4h_to_h", "act"),),
)


class GPTNeoXCoupledAttention(LaidOutAttention):
    """GPT-NeoX attention; query_key_value holds [q | k | v] of one head after the other."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "GPT-NeoX, Pythia (transformers)", LAYOUT, GPTNeoXCoupledAttention)
