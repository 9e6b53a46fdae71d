"""Seed-OSS of transformers: LLaMA with dropout behind attention and feed-forward layer."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention

LAYOUT = BlockLayout(
    models={"seed_oss": "SeedOss"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        "mlp": "MLP",
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm"), "RMSNorm"),
    },
    attention=AttentionLayout(rotary="halves", after="residual_dropout"),
)


class SeedOssCoupledAttention(LaidOutAttention):
    """Seed-OSS attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "Seed-OSS (transformers)", LAYOUT, SeedOssCoupledAttention)
