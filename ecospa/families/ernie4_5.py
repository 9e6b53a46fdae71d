"""ERNIE 4.5 of transformers: LLaMA whose rotary partners are neighbours."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"ernie4_5": "Ernie4_5"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
    },
    attention=AttentionLayout(rotary="neighbours", in_float32=True),
)


class Ernie45CoupledAttention(LaidOutAttention):
    """ERNIE 4.5 attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "ERNIE 4.5 (transformers)", LAYOUT, Ernie45CoupledAttention)
