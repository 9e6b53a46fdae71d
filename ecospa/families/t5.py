"""T5 and mT5 of transformers: scores without a scale, a position bias that the first layer makes for all."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ecospa.attention import CoupledAttention, attend, extend_cache, extend_cross_cache, split_heads
from ecospa.block_layout import BlockLayout, FeedForwardLayout, block_family
from ecospa.laid_out_attention import AttentionLayout
from ecospa.projections import project
from ecospa.stock import DROPOUT, MODULE_LIST

_PLACES = ("layer.1", "layer.2")  # of the feed-forward layer, in encoder and decoder
_KINDS = (("wi",), ("wi_0", "wi_1"))
LAYOUT = BlockLayout(
    models={"t5": "T5", "mt5": "MT5"},
    parts={
        "": "Block",
        "layer": MODULE_LIST,
        "layer.0": "LayerSelfAttention",
        "layer.1": "LayerCrossAttention LayerFF",
        "layer.2": "LayerFF",
        **dict.fromkeys(("layer.0.SelfAttention", "layer.1.EncDecAttention"), "Attention"),
        "layer.0.SelfAttention.relative_attention_bias": frozenset({"torch.nn.modules.sparse.Embedding"}),
        **dict.fromkeys((f"{place}.DenseReluDense" for place in _PLACES), "DenseActDense DenseGatedActDense"),
        **dict.fromkeys((f"layer.{place}.layer_norm" for place in range(3)), "LayerNorm"),
        **dict.fromkeys((f"layer.{place}.dropout" for place in range(3)), DROPOUT),
        **dict.fromkeys((f"{place}.DenseReluDense.dropout" for place in _PLACES), DROPOUT),
    },
    attention=AttentionLayout(("q", "k", "v"), output="o", width="key_value_proj_dim"),
    attentions=("layer.0.SelfAttention", "layer.1.EncDecAttention"),
    cross=("layer.1.EncDecAttention",),
    feed_forward=tuple(
        FeedForwardLayout(f"{place}.DenseReluDense", kind, "wo", "act") for place in _PLACES for kind in _KINDS
    ),
    whole=frozenset({"layer.0.SelfAttention.relative_attention_bias.weight"}),
    joined_heads="its position bias is that of the first layer, whose heads are the same",
)


class T5CoupledAttention(CoupledAttention):
    """T5 attention, over the own sequence or over the encoder's."""

    def forward(
        self: Any, hidden_states: Tensor, mask: Tensor | None = None, key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None, past_key_values: Any = None, **kwargs: Any,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Attention as in transformers, which hands the position bias on to the next layer."""
        heads, time, cache = self.geometry.groups, hidden_states.shape[1], kwargs.get("cache", past_key_values)
        seen = 0 if cache is None else cache.get_seq_length(self.layer_idx)
        seen = seen.clone() if isinstance(seen, Tensor) else seen  # a static cache counts in place
        if key_value_states is None:
            query, key, value = (split_heads(part, heads) for part in project(self, hidden_states, "q", "k", "v"))
            key, value = extend_cache(self, key, value, past_key_values, kwargs)
        else:
            query = split_heads(self.q(hidden_states), heads)
            key, value = extend_cross_cache(self, key_value_states, ("k", "v"), past_key_values, kwargs)
        if position_bias is None and self.has_relative_attention_bias:
            position_bias = self.compute_bias(time, key.shape[2], device=query.device, past_seen_tokens=seen)
        elif position_bias is None:
            position_bias = query.new_zeros(1, heads, time, key.shape[2])
            position_bias.requires_grad_(self.gradient_checkpointing and self.training)
        dropout = self.dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, mask, dropout=dropout, scaling=1.0, position_bias=position_bias, **kwargs
        )
        return self.o(output.flatten(-2).contiguous()), position_bias, weights


FAMILY = block_family(__name__, "T5, mT5 (transformers)", LAYOUT, T5CoupledAttention)
