"""Mixtral of transformers: Mistral with a mixture of experts, which lose the same indices."""

from __future__ import annotations

from ecospa.block_layout import EXPERTS, BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"mixtral": "Mixtral"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "SparseMoeBlock",
        "mlp.experts": "Experts",
        "mlp.gate": "TopKRouter",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
    },
    attention=AttentionLayout(rotary="halves", window="config"),
    feed_forward=(EXPERTS,),
    whole=frozenset({"mlp.gate.weight"}),
)


class MixtralCoupledAttention(LaidOutAttention):
    """Mixtral attention; the router and the choice of experts stay as they are."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Mixtral (transformers)", LAYOUT, MixtralCoupledAttention)
