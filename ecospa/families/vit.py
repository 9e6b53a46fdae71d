"""ViT, DeiT and what has their layers: q_proj, k_proj, v_proj and o_proj in one module, plain FFN (paper: DeiT)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ecospa.attention import CoupledAttention, HeadGeometry, attend, split_heads
from ecospa.families import Family, require_plain
from ecospa.pairs import CoupledPair, PairKind, head_index, input_axes, output_axes
from ecospa.projections import Mergeable, project
from ecospa.stock import ACTIVATION, DROPOUT, LAYER_NORM, LINEAR, Known

_QKV = ("q_proj", "k_proj", "v_proj")
_MODELS = {
    "audio_spectrogram_transformer": "AST",
    "deit": "DeiT",
    "ijepa": "IJepa",
    "vit": "ViT",
    "vit_mae": "ViTMAE",
    "vit_msn": "ViTMSN",
    "vivit": "Vivit",
}
"""Module of transformers -> prefix of its classes, for all whose layers are those of ViT after renaming."""


class ViTCoupledAttention(CoupledAttention):
    """ViT self attention with the query/key width and the value width apart."""

    def forward(
        self: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Self attention as in transformers, without a cache."""
        query, key, value = (
            split_heads(states, self.geometry.groups) for states in project(self, hidden_states, *_QKV)
        )
        dropout = self.attention_dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o_proj(output.flatten(-2).contiguous()), weights


def geometry(attention: Any) -> HeadGeometry:
    """Widths of a ViT or DeiT attention module."""
    if isinstance(attention, CoupledAttention):
        return attention.geometry
    width = attention.head_dim
    return HeadGeometry(attention.num_attention_heads, 1, width, width, width)


def find(name: str, block: Any) -> Iterator[CoupledPair]:
    """QK, VO and FFN pair of one encoder layer."""
    attention, mlp = f"{name}.attention", f"{name}.mlp"
    own = {f"{attention}.{part}": getattr(block.attention, part) for part in (*_QKV, "o_proj")}
    hidden_layers = {f"{mlp}.{part}": getattr(block.mlp, part) for part in ("fc1", "fc2")}
    require_plain(own | hidden_layers)
    (q, query), (k, key), (v, value), (o, output) = own.items()
    (fc1_name, fc1), (fc2_name, fc2) = hidden_layers.items()
    shape = geometry(block.attention)
    heads, qk, vo = shape.groups, shape.qk_width, shape.vo_width
    qk_index, vo_index, hidden = head_index(heads, qk), head_index(heads, vo), head_index(1, fc1.weight.shape[0])

    left, right = output_axes(q, query, qk_index), output_axes(k, key, qk_index)
    yield CoupledPair(f"{attention}.qk", PairKind.QK, heads, qk, 1, attention, name, left, right)
    left, right = output_axes(v, value, vo_index), input_axes(o, output, vo_index)
    yield CoupledPair(f"{attention}.vo", PairKind.VO, heads, vo, 1, attention, name, left, right)
    left, right = output_axes(fc1_name, fc1, hidden), input_axes(fc2_name, fc2, hidden)
    yield CoupledPair(f"{mlp}.ffn", PairKind.FFN, 1, hidden.shape[1], 1, mlp, name, left, right)


def _classes(part: str) -> frozenset[str]:
    return frozenset(f"transformers.models.{model}.modeling_{model}.{name}{part}" for model, name in _MODELS.items())


def _stock() -> Known:
    linear = (*(f"attention.{part}" for part in (*_QKV, "o_proj")), "mlp.fc1", "mlp.fc2")
    return {
        "": _classes("Layer"),
        "attention": _classes("Attention"),
        "mlp": _classes("MLP"),
        "mlp.activation_fn": ACTIVATION,
        "dropout": DROPOUT,
        **dict.fromkeys(("layernorm_before", "layernorm_after"), LAYER_NORM),
        **dict.fromkeys(linear, LINEAR),
    }


FAMILY = Family(
    name="ViT, DeiT and relatives (transformers)",
    blocks=_classes("Layer"),
    find=find,
    attention=ViTCoupledAttention,
    geometry=geometry,
    stock=_stock(),
    mergeable=(Mergeable("qkv", "attention", _QKV, tuple(f"{name}Attention" for name in _MODELS.values())),),
)
