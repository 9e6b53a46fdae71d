"""BERT, RoBERTa and what has their layers: the output projection lies in another module than query, key and value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ecospa.attention import CoupledAttention, HeadGeometry, attend, extend_cache, split_heads
from ecospa.families import Family, require_plain, unsupported
from ecospa.pairs import CoupledPair, PairKind, head_index, input_axes, output_axes
from ecospa.projections import Mergeable, project
from ecospa.stock import ACTIVATION, DROPOUT, LAYER_NORM, LINEAR, Known

_QKV = ("query", "key", "value")
_MODELS = {
    "align": "AlignText",
    "altclip": "AltRoberta",
    "bert": "Bert",
    "bert_generation": "BertGeneration",
    "camembert": "Camembert",
    "clap": "ClapText",
    "data2vec_text": "Data2VecText",
    "electra": "Electra",
    "ernie": "Ernie",
    "layoutlm": "LayoutLM",
    "markuplm": "MarkupLM",
    "roberta": "Roberta",
    "roberta_prelayernorm": "RobertaPreLayerNorm",
    "roc_bert": "RoCBert",
    "splinter": "Splinter",
    "xlm_roberta": "XLMRoberta",
    "xlm_roberta_xl": "XLMRobertaXL",
}
"""Module of transformers -> prefix of its classes, for all whose layers are those of BERT after renaming.

Before or after its norms, a layer has the same pairs.
"""


class BertCoupledAttention(CoupledAttention):
    """BERT self attention with the query/key width and the value width apart."""

    def forward(
        self: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Self attention as in transformers; the output projection follows in the parent module."""
        query, key, value = (
            split_heads(states, self.geometry.groups) for states in project(self, hidden_states, *_QKV)
        )
        key, value = extend_cache(self, key, value, past_key_values, kwargs)
        dropout = self.dropout.p if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return output.flatten(-2).contiguous(), weights


def geometry(attention: Any) -> HeadGeometry:
    """Widths of a BERT or RoBERTa self-attention module."""
    if isinstance(attention, CoupledAttention):
        return attention.geometry
    width = attention.attention_head_size
    return HeadGeometry(attention.num_attention_heads, 1, width, width, width)


def find(name: str, block: Any) -> Iterator[CoupledPair]:
    """QK, VO and FFN pair of one encoder layer."""
    if hasattr(block, "crossattention"):
        raise unsupported(f"{name}.crossattention", "cross attention is not supported", "use an encoder without it")
    attention = f"{name}.attention.self"
    projections = {
        f"{attention}.query": block.attention.self.query,
        f"{attention}.key": block.attention.self.key,
        f"{attention}.value": block.attention.self.value,
        f"{name}.attention.output.dense": block.attention.output.dense,
        f"{name}.intermediate.dense": block.intermediate.dense,
        f"{name}.output.dense": block.output.dense,
    }
    require_plain(projections)
    (q, query), (k, key), (v, value), (o, output), (w_in, wide), (w_out, narrow) = projections.items()
    shape = geometry(block.attention.self)
    heads, qk, vo = shape.groups, shape.qk_width, shape.vo_width
    qk_index, vo_index, hidden = head_index(heads, qk), head_index(heads, vo), head_index(1, wide.weight.shape[0])

    left, right = output_axes(q, query, qk_index), output_axes(k, key, qk_index)
    yield CoupledPair(f"{name}.attention.qk", PairKind.QK, heads, qk, 1, attention, name, left, right)
    left, right = output_axes(v, value, vo_index), input_axes(o, output, vo_index)
    yield CoupledPair(f"{name}.attention.vo", PairKind.VO, heads, vo, 1, attention, name, left, right)
    left, right = output_axes(w_in, wide, hidden), input_axes(w_out, narrow, hidden)
    yield CoupledPair(f"{name}.ffn", PairKind.FFN, 1, hidden.shape[1], 1, name, name, left, right)


def _classes(part: str) -> frozenset[str]:
    return frozenset(
        f"transformers.models.{model.removesuffix('_text')}.modeling_{model}.{prefix}{part}"
        for model, prefix in _MODELS.items()
    )


def _stock() -> Known:
    linear = (
        *(f"attention.self.{part}" for part in _QKV),
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
    norms = ("attention.output.LayerNorm", "output.LayerNorm", "attention.LayerNorm", "intermediate.LayerNorm")
    return {
        "": _classes("Layer"),
        "attention": _classes("Attention"),
        "attention.self": _classes("SelfAttention"),
        "attention.output": _classes("SelfOutput"),
        "intermediate": _classes("Intermediate"),
        "intermediate.intermediate_act_fn": ACTIVATION,
        "output": _classes("Output"),
        **dict.fromkeys((*norms, "attention.self_attn_layer_norm", "LayerNorm"), LAYER_NORM),
        **dict.fromkeys(("attention.self.dropout", "attention.output.dropout", "output.dropout"), DROPOUT),
        **dict.fromkeys(("attention.dropout", "intermediate.dropout"), DROPOUT),
        **dict.fromkeys(linear, LINEAR),
    }


FAMILY = Family(
    name="BERT, RoBERTa and relatives (transformers)",
    blocks=_classes("Layer"),
    find=find,
    attention=BertCoupledAttention,
    geometry=geometry,
    stock=_stock(),
    mergeable=(
        Mergeable("qkv", "attention.self", _QKV, tuple(f"{prefix}SelfAttention" for prefix in _MODELS.values())),
    ),
)
