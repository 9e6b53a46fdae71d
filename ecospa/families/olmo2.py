"""OLMo 2 of transformers: norms over all query heads and all key heads together."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"olmo2": "Olmo2"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(
            ("post_attention_layernorm", "post_feedforward_layernorm", "self_attn.q_norm", "self_attn.k_norm"),
            "RMSNorm",
        ),
    },
    attention=AttentionLayout(rotary="halves", norms=("q_norm", "k_norm"), joint_norms=True),
)


class Olmo2CoupledAttention(LaidOutAttention):
    """OLMo 2 attention; norms keep the denominator of the original width of all heads."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "OLMo 2 (transformers)", LAYOUT, Olmo2CoupledAttention)
