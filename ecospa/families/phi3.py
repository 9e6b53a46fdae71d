"""Phi-3 and Phi-4 of transformers: one weight for queries, keys and values, one for gate and up."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import DROPOUT

LAYOUT = BlockLayout(
    models={"phi3": "Phi3"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
        **dict.fromkeys(("resid_attn_dropout", "resid_mlp_dropout"), DROPOUT),
    },
    attention=AttentionLayout(("qkv_proj",), rotary="halves", window="config"),
    feed_forward=(FeedForwardLayout(inputs=("gate_up_proj",), activation="activation_fn", fused=True),),
)


class Phi3CoupledAttention(LaidOutAttention):
    """Phi-3 attention; qkv_proj holds [queries | keys | values]."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Phi-3, Phi-4 (transformers)", LAYOUT, Phi3CoupledAttention)
