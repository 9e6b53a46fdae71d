"""GPT-2 of transformers: fused query/key/value in a Conv1D, whose weight is (in, out) (paper: GPT-2 pre-training)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ecospa.attention import CoupledAttention, HeadGeometry, attend, extend_cache, split_heads
from ecospa.families import Family, require_plain, unsupported
from ecospa.pairs import CoupledPair, PairKind, head_index, input_axes, output_axes
from ecospa.stock import ACTIVATION, CONV1D, DROPOUT, LAYER_NORM

_HOME = "transformers.models.gpt2.modeling_gpt2"


class GPT2CoupledAttention(CoupledAttention):
    """GPT-2 attention; c_attn holds [queries | keys | values] with widths a, a and b per head."""

    def forward(
        self: Any,
        hidden_states: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        output_attentions: bool | None = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Self attention as in transformers, with the query/key width and the value width apart."""
        heads, qk, vo = self.geometry.groups, self.geometry.qk_width, self.geometry.vo_width
        fused = self.c_attn(hidden_states).split([heads * qk, heads * qk, heads * vo], dim=2)
        query, key, value = (split_heads(states, heads) for states in fused)
        key, value = extend_cache(self, key, value, past_key_values, kwargs)
        if self.config._attn_implementation == "eager" and self.reorder_and_upcast_attn:
            output, weights = self._upcast_and_reordered_attn(query, key, value, attention_mask)
        else:
            dropout = self.attn_dropout.p if self.training else 0.0
            output, weights = attend(
                self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
            )
        output = self.c_proj(output.flatten(-2).contiguous())
        return self.resid_dropout(output), weights


def geometry(attention: Any) -> HeadGeometry:
    """Widths of a GPT-2 attention module."""
    if isinstance(attention, CoupledAttention):
        return attention.geometry
    width = attention.head_dim
    return HeadGeometry(attention.num_heads, 1, width, width, width)


def find(name: str, block: Any) -> Iterator[CoupledPair]:
    """QK, VO and FFN pair of one GPT2Block."""
    if hasattr(block, "crossattention"):
        raise unsupported(f"{name}.crossattention", "cross attention is not supported", "use a decoder without it")
    attention, mlp = f"{name}.attn", f"{name}.mlp"
    qkv, proj, c_fc, c_proj = f"{attention}.c_attn", f"{attention}.c_proj", f"{mlp}.c_fc", f"{mlp}.c_proj"
    projections = {qkv: block.attn.c_attn, proj: block.attn.c_proj, c_fc: block.mlp.c_fc, c_proj: block.mlp.c_proj}
    require_plain(projections, "Conv1D")
    shape = geometry(block.attn)
    heads, qk, vo = shape.groups, shape.qk_width, shape.vo_width
    query, key = head_index(heads, qk), head_index(heads, qk, offset=heads * qk)
    value, hidden = head_index(heads, vo, offset=2 * heads * qk), head_index(1, block.mlp.c_fc.weight.shape[1])

    left, right = output_axes(qkv, block.attn.c_attn, query), output_axes(qkv, block.attn.c_attn, key)
    yield CoupledPair(f"{attention}.qk", PairKind.QK, heads, qk, 1, attention, name, left, right)
    left = output_axes(qkv, block.attn.c_attn, value)
    right = input_axes(proj, block.attn.c_proj, head_index(heads, vo))
    yield CoupledPair(f"{attention}.vo", PairKind.VO, heads, vo, 1, attention, name, left, right)
    left, right = output_axes(c_fc, block.mlp.c_fc, hidden), input_axes(c_proj, block.mlp.c_proj, hidden)
    yield CoupledPair(f"{mlp}.ffn", PairKind.FFN, 1, hidden.shape[1], 1, mlp, name, left, right)


FAMILY = Family(
    name="GPT-2 (transformers)",
    blocks=frozenset({f"{_HOME}.GPT2Block"}),
    find=find,
    attention=GPT2CoupledAttention,
    geometry=geometry,
    stock={
        "": frozenset({f"{_HOME}.GPT2Block"}),
        "attn": frozenset({f"{_HOME}.GPT2Attention"}),
        "mlp": frozenset({f"{_HOME}.GPT2MLP"}),
        "mlp.act": ACTIVATION,
        **dict.fromkeys(("ln_1", "ln_2"), LAYER_NORM),
        **dict.fromkeys(("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"), CONV1D),
        **dict.fromkeys(("attn.attn_dropout", "attn.resid_dropout", "mlp.dropout"), DROPOUT),
    },
)
