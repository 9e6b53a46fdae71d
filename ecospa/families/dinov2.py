"""DINOv2 of transformers: ViT with layer scales, its feed-forward layer plain or gated."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import IDENTITY, LAYER_NORM

LAYOUT = BlockLayout(
    models={"dinov2": "Dinov2", "dinov2_with_registers": "Dinov2WithRegisters"},
    parts={
        "": "Layer",
        "attention": "Attention",
        "mlp": "MLP SwiGLUFFN",
        "drop_path": frozenset(IDENTITY),
        **dict.fromkeys(("layer_scale1", "layer_scale2"), "LayerScale"),
        **dict.fromkeys(("norm1", "norm2"), LAYER_NORM),
    },
    attention=AttentionLayout(),
    attentions=("attention",),
    feed_forward=(FeedForwardLayout("mlp", ("fc1",), "fc2", "activation_fn"), FeedForwardLayout()),
)


class Dinov2CoupledAttention(LaidOutAttention):
    """DINOv2 attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "DINOv2 (transformers)", LAYOUT, Dinov2CoupledAttention)
