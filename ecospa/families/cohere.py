"""Cohere Command R of transformers: neighbouring indices are rotary partners."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"cohere": "Cohere"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        "input_layernorm": "LayerNorm",
    },
    attention=AttentionLayout(rotary="neighbours", tables="neighbours", in_float32=True),
    refused={"self_attn.use_qk_norm": "a LayerNorm of its own for every head would mix its indices"},
)


class CohereCoupledAttention(LaidOutAttention):
    """Cohere attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Cohere (transformers)", LAYOUT, CohereCoupledAttention)
