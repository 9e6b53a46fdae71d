"""OLMoE of transformers: OLMo 2 with a mixture of experts, which lose the same indices."""

from __future__ import annotations

from ecospa.block_layout import EXPERTS, BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"olmoe": "Olmoe"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "SparseMoeBlock",
        "mlp.experts": "Experts",
        "mlp.gate": "TopKRouter",
        **dict.fromkeys(
            ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"), "RMSNorm"
        ),
    },
    attention=AttentionLayout(
        rotary="halves", clip="clip_qkv", window="config", norms=("q_norm", "k_norm"), joint_norms=True
    ),
    feed_forward=(EXPERTS,),
    whole=frozenset({"mlp.gate.weight"}),
)


class OlmoeCoupledAttention(LaidOutAttention):
    """OLMoE attention; the router and the choice of experts stay as they are."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "OLMoE (transformers)", LAYOUT, OlmoeCoupledAttention)
