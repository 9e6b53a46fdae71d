"""GPT-J of transformers: neighbours in the first part of every head are rotary partners, blocks are parallel."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import DROPOUT, LAYER_NORM

LAYOUT = BlockLayout(
    models={"gptj": "GPTJ"},
    parts={
        "": "Block",
        "attn": "Attention",
        "mlp": "MLP",
        "ln_1": LAYER_NORM,
        **dict.fromkeys(("attn.resid_dropout", "mlp.dropout"), DROPOUT),
    },
    attention=AttentionLayout(
        output="out_proj",
        after="resid_dropout",
        rotary="neighbours",
        tables="single",
        sines_first=True,
        rotary_width="rotary_dim",
    ),
    attentions=("attn",),
    feed_forward=(FeedForwardLayout("mlp", ("fc_in",), "fc_out", "act"),),
)


class GPTJCoupledAttention(LaidOutAttention):
    """GPT-J attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "GPT-J (transformers)", LAYOUT, GPTJCoupledAttention)
