"""OLMo of transformers: queries, keys and values may be clipped, norms have no weights."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"olmo": "Olmo"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "LayerNorm"),
    },
    attention=AttentionLayout(rotary="halves", clip="clip_qkv"),
)


class OlmoCoupledAttention(LaidOutAttention):
    """OLMo attention; an entry at zero stays there when it is clipped."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "OLMo (transformers)", LAYOUT, OlmoCoupledAttention)
