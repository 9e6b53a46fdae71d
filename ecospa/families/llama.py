"""LLaMA, Mistral, Qwen2, Qwen3 and equals of transformers: rotary embedding, grouped queries, gated FFN, head norms.

Rotary partners (j, j + d/2) leave together and the rest keep their frequencies; the query heads of a key/value head
share its index set; gate and up stand together on the left of the FFN pair (design choices, the paper's own rules for
grouped-query attention and rotary embeddings are not known).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ecospa.attention import (
    CoupledAttention,
    HeadGeometry,
    attend,
    extend_cache,
    head_rms_norm,
    rotate,
    split_heads,
    surviving_tables,
)
from ecospa.class_swap import Swapped
from ecospa.families import Family, require_plain
from ecospa.pairs import CoupledPair, PairKind, head_index, input_axes, output_axes
from ecospa.projections import Mergeable, project
from ecospa.stock import ACTIVATION, LINEAR, Known

_FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Ministral", "Cwm")
_QKV = ("q_proj", "k_proj", "v_proj")
_GATE_UP = ("gate_proj", "up_proj")


class RotaryCoupledAttention(CoupledAttention):
    """Attention of the LLaMA family with the query/key width and the value width apart."""

    def forward(
        self: Any,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Self attention as in transformers; every surviving index keeps its frequency and its norm weight."""
        groups, heads = self.geometry.groups, self.geometry.query_heads
        projected = project(self, hidden_states, *_QKV)
        query, key, value = (
            split_heads(states, n) for states, n in zip(projected, (heads, groups, groups), strict=True)
        )
        assert position_embeddings is not None  # the block gives them, with a default for the sake of old callers
        rotated = _rotated_whole if self.geometry.qk_width == self.geometry.head_width else _rotated
        query, key = rotated(self, query, key, *position_embeddings)
        key, value = extend_cache(self, key, value, past_key_values, kwargs)
        if self.config.model_type != "llama":
            kwargs["sliding_window"] = _sliding_window(self)
        dropout = self.attention_dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o_proj(output.flatten(-2).contiguous()), weights


class MergedFeedForward(Swapped):
    """Gated feed-forward layer whose gate and up come from one matrix product."""

    prefix = "Merged"

    def forward(self: Any, x: Tensor) -> Tensor:
        """down(act(gate(x)) * up(x)), as in transformers."""
        gate, up = project(self, x, *_GATE_UP)
        result: Tensor = self.down_proj(self.act_fn(gate) * up)
        return result


def _rotated_whole(attention: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys that have all their indices, by the stock functions: a gather would be two launches more."""
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    stock = sys.modules[type(attention).original.__module__]
    result: tuple[Tensor, Tensor] = stock.apply_rotary_pos_emb(query, key, cos, sin)
    return result


def _rotated(attention: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of the surviving indices, each with its own frequency and norm weight."""
    kept = attention.kept_qk
    if hasattr(attention, "q_norm"):
        query = head_rms_norm(query, attention.q_norm.weight, attention.q_norm.variance_epsilon, kept)
        key = head_rms_norm(key, attention.k_norm.weight, attention.k_norm.variance_epsilon, kept)
    cos, sin = surviving_tables(cos, sin, kept)
    return rotate(query, cos, sin), rotate(key, cos, sin)


def _sliding_window(attention: Any) -> int | None:
    # Mistral reads it from the config, the others from the layer, LLaMA has none
    holder = attention.config if attention.config.model_type == "mistral" else attention
    window: int | None = getattr(holder, "sliding_window", None)
    return window


def geometry(attention: Any) -> HeadGeometry:
    """Widths of an attention module of the LLaMA family."""
    if isinstance(attention, CoupledAttention):
        return attention.geometry
    width, groups, repeats = attention.head_dim, attention.config.num_key_value_heads, attention.num_key_value_groups
    return HeadGeometry(groups, repeats, width, width, width, tracked=True)


def find(name: str, block: Any) -> Iterator[CoupledPair]:
    """QK, VO and gated FFN pair of one decoder layer."""
    attention, mlp = f"{name}.self_attn", f"{name}.mlp"
    own = {f"{attention}.{part}": getattr(block.self_attn, part) for part in (*_QKV, "o_proj")}
    gated = {f"{mlp}.{part}": getattr(block.mlp, part) for part in (*_GATE_UP, "down_proj")}
    require_plain(own | gated)
    (q, query), (k, key), (v, value), (o, output) = own.items()
    shape = geometry(block.self_attn)
    groups, repeats, qk, vo = shape.groups, shape.repeats, shape.qk_width, shape.vo_width

    left = output_axes(q, query, head_index(groups, qk, repeats=repeats))
    right = output_axes(k, key, head_index(groups, qk))
    yield CoupledPair(f"{attention}.qk", PairKind.QK, groups, qk, 2, attention, name, left, right)
    left = output_axes(v, value, head_index(groups, vo))
    right = input_axes(o, output, head_index(groups, vo, repeats=repeats))
    yield CoupledPair(f"{attention}.vo", PairKind.VO, groups, vo, 1, attention, name, left, right)
    (gate_name, gate), (up_name, up), (down_name, down) = gated.items()
    hidden = head_index(1, up.weight.shape[0])
    left = output_axes(gate_name, gate, hidden) + output_axes(up_name, up, hidden)
    right = input_axes(down_name, down, hidden)
    yield CoupledPair(f"{mlp}.ffn", PairKind.FFN, 1, hidden.shape[1], 1, mlp, name, left, right)


def _inputs(block: Any, states: Tensor) -> dict[str, Any]:
    """Rotary tables of random angles, one per couple."""
    half = geometry(block.self_attn).head_width // 2
    angles = torch.rand(1, states.shape[1], half, dtype=states.dtype, device=states.device).mul(6.0).repeat(1, 1, 2)
    return {"position_embeddings": (angles.cos(), angles.sin())}


def _stock() -> Known:
    def classes(part: str) -> frozenset[str]:
        return frozenset(f"transformers.models.{f.lower()}.modeling_{f.lower()}.{f}{part}" for f in _FAMILIES)

    norms = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
    linear = (f"self_attn.{part}" for part in (*_QKV, "o_proj"))
    return {
        "": classes("DecoderLayer"),
        "self_attn": classes("Attention"),
        "mlp": classes("MLP"),
        "mlp.act_fn": ACTIVATION,
        **dict.fromkeys(norms, classes("RMSNorm")),
        **dict.fromkeys((*linear, *(f"mlp.{part}" for part in (*_GATE_UP, "down_proj"))), LINEAR),
    }


FAMILY = Family(
    name="LLaMA, Mistral, Ministral, Qwen2, Qwen3, CWM (transformers)",
    blocks=frozenset(
        f"transformers.models.{family.lower()}.modeling_{family.lower()}.{family}DecoderLayer" for family in _FAMILIES
    ),
    find=find,
    attention=RotaryCoupledAttention,
    geometry=geometry,
    mergeable=(
        Mergeable("qkv", "self_attn", _QKV, tuple(f"{family}Attention" for family in _FAMILIES)),
        Mergeable("gate_up", "mlp", _GATE_UP, tuple(f"{family}MLP" for family in _FAMILIES), MergedFeedForward),
    ),
    stock=_stock(),
    inputs=_inputs,
)
