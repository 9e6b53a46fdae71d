"""CLIP of transformers, both towers: plain feed-forward layer, no rotary embedding."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import LAYER_NORM

LAYOUT = BlockLayout(
    models={"altclip": "AltCLIP", "clip": "CLIP", "metaclip_2": "MetaClip2"},
    parts={
        "": "EncoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("layer_norm1", "layer_norm2"), LAYER_NORM),
    },
    attention=AttentionLayout(output="out_proj", scaling="scale", dropout="dropout"),
    feed_forward=(FeedForwardLayout("mlp", ("fc1",), "fc2", "activation_fn"),),
)


class CLIPCoupledAttention(LaidOutAttention):
    """CLIP attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "CLIP, AltCLIP, MetaCLIP 2 (transformers)", LAYOUT, CLIPCoupledAttention)
