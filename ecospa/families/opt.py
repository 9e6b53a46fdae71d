"""OPT of transformers: plain feed-forward layer whose projections lie in the block itself."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import LAYER_NORM

LAYOUT = BlockLayout(
    models={"opt": "OPT"},
    parts={
        "": "DecoderLayer",
        "self_attn": "Attention",
        **dict.fromkeys(("self_attn_layer_norm", "final_layer_norm"), LAYER_NORM),
    },
    attention=AttentionLayout(output="out_proj", dropout="dropout"),
    feed_forward=(FeedForwardLayout("", ("fc1",), "fc2", "activation_fn"),),
)


class OPTCoupledAttention(LaidOutAttention):
    """OPT attention; the scale is applied to the scores instead of the queries."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "OPT (transformers)", LAYOUT, OPTCoupledAttention)
