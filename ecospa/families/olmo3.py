"""OLMo 3 of transformers: OLMo 2 with sliding windows in most layers."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"olmo3": "Olmo3"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(
            ("post_attention_layernorm", "post_feedforward_layernorm", "self_attn.q_norm", "self_attn.k_norm"),
            "RMSNorm",
        ),
    },
    attention=AttentionLayout(rotary="halves", window="module", norms=("q_norm", "k_norm"), joint_norms=True),
)


class Olmo3CoupledAttention(LaidOutAttention):
    """OLMo 3 attention; norms keep the denominator of the original width of all heads."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "OLMo 3 (transformers)", LAYOUT, Olmo3CoupledAttention)
