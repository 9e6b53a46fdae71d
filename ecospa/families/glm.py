"""GLM-4 of transformers: neighbours in the first half of every head are rotary partners."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"glm": "Glm", "glm4": "Glm4"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(
            ("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"), "RMSNorm"
        ),
    },
    attention=AttentionLayout(rotary="neighbours"),
    feed_forward=(FeedForwardLayout(inputs=("gate_up_proj",), activation="activation_fn", fused=True),),
)


class GlmCoupledAttention(LaidOutAttention):
    """GLM attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "GLM, GLM-4 (transformers)", LAYOUT, GlmCoupledAttention)
