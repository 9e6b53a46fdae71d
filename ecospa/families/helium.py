"""Helium of transformers: LLaMA whose rotary partners are neighbours."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"helium": "Helium"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
    },
    attention=AttentionLayout(rotary="neighbours"),
)


class HeliumCoupledAttention(LaidOutAttention):
    """Helium attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Helium (transformers)", LAYOUT, HeliumCoupledAttention)
