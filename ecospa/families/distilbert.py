"""DistilBERT of transformers: BERT with its projections in one module each."""

from __future__ import annotations

from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout, LaidOutAttention
from ecospa.stock import DROPOUT, LAYER_NORM

LAYOUT = BlockLayout(
    models={"distilbert": "DistilBert"},
    parts={
        "": frozenset({"transformers.models.distilbert.modeling_distilbert.TransformerBlock"}),
        "attention": "SelfAttention",
        "ffn": frozenset({"transformers.models.distilbert.modeling_distilbert.FFN"}),
        **dict.fromkeys(("sa_layer_norm", "output_layer_norm"), LAYER_NORM),
        **dict.fromkeys(("attention.dropout", "ffn.dropout"), DROPOUT),
    },
    attention=AttentionLayout(
        ("q_lin", "k_lin", "v_lin"), output="out_lin", width="attention_head_size", dropout="dropout"
    ),
    attentions=("attention",),
    feed_forward=(FeedForwardLayout("ffn", ("lin1",), "lin2", "activation"),),
)


class DistilBertCoupledAttention(LaidOutAttention):
    """DistilBERT attention."""

    layout = LAYOUT.attention


FAMILY = block_family(__name__, "DistilBERT (transformers)", LAYOUT, DistilBertCoupledAttention)
