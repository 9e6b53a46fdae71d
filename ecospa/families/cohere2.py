"""Cohere Command R7B of transformers: only layers with a sliding window are rotary."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"cohere2": "Cohere2"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        "input_layernorm": "LayerNorm",
    },
    attention=AttentionLayout(
        rotary="neighbours", tables="neighbours", rotary_if="sliding_window", in_float32=True, window="module"
    ),
)


class Cohere2CoupledAttention(LaidOutAttention):
    """Cohere 2 attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Cohere 2 (transformers)", LAYOUT, Cohere2CoupledAttention)
