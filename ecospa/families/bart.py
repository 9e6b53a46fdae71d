"""BART and its relatives of transformers, Whisper too: encoder and decoder layers, cross attention included."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import LAYER_NORM

LAYOUT = BlockLayout(
    models={
        "bart": "Bart",
        "blenderbot": "Blenderbot",
        "blenderbot_small": "BlenderbotSmall",
        "m2m_100": "M2M100",
        "marian": "Marian",
        "mbart": "MBart",
        "pegasus": "Pegasus",
        "plbart": "PLBart",
        "whisper": "Whisper",
    },
    parts={
        "": "EncoderLayer DecoderLayer",
        **dict.fromkeys(("self_attn", "encoder_attn"), "Attention"),
        **dict.fromkeys(("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"), LAYER_NORM),
    },
    attention=AttentionLayout(output="out_proj", dropout="dropout"),
    attentions=("self_attn", "encoder_attn"),
    cross=("encoder_attn",),
    feed_forward=(FeedForwardLayout("", ("fc1",), "fc2", "activation_fn"),),
)


class BartCoupledAttention(LaidOutAttention):
    """BART attention, over the own sequence or over the encoder's."""

    layout = LAYOUT.attention


FAMILY = block_family(
    __name__,
    "BART, mBART, Marian, Pegasus, BlenderBot, PLBart, M2M100, Whisper (transformers)",
    LAYOUT,
    BartCoupledAttention,
)
