"""SigLIP of transformers, both towers: plain feed-forward layer, no rotary embedding."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import LAYER_NORM

LAYOUT = BlockLayout(
    models={"siglip": "Siglip", "siglip2": "Siglip2"},
    parts={
        "": "EncoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("layer_norm1", "layer_norm2"), LAYER_NORM),
    },
    attention=AttentionLayout(
        output="out_proj", scaling="scale", dropout="dropout", options=(("is_causal", "is_causal"),)
    ),
    feed_forward=(FeedForwardLayout("mlp", ("fc1",), "fc2", "activation_fn"),),
)


class SiglipCoupledAttention(LaidOutAttention):
    """SigLIP attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "SigLIP, SigLIP 2 (transformers)", LAYOUT, SiglipCoupledAttention)
