"""ModernBERT of transformers: rotary encoder, one weight for queries, keys and values, one for gate and up."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import DROPOUT, IDENTITY, LAYER_NORM

LAYOUT = BlockLayout(
    models={"modernbert": "ModernBert"},
    parts={
        "": "EncoderLayer",
        "attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("attn_norm", "mlp_norm"), LAYER_NORM | IDENTITY),
        **dict.fromkeys(("attn.out_drop", "mlp.drop"), DROPOUT | IDENTITY),
    },
    attention=AttentionLayout(
        ("Wqkv",),
        output="Wo",
        scaling="",
        after="out_drop",
        rotary="halves",
        in_float32=True,
        window="module",
        options=(("deterministic", "deterministic_flash_attn"),),
    ),
    attentions=("attn",),
    feed_forward=(FeedForwardLayout("mlp", ("Wi",), "Wo", "act", fused=True),),
)


class ModernBertCoupledAttention(LaidOutAttention):
    """ModernBERT attention; Wqkv holds [queries | keys | values]."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "ModernBERT (transformers)", LAYOUT, ModernBertCoupledAttention)
