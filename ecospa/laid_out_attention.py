"""One attention forward for every family that says how its heads are laid out: names, order, rotary partners, norms.

Rotary partners lie half a head apart or next to one another, over all of a head or over its first part only. Indices
outside of that part are turned by the angle zero, so that every head is rotary as a whole and may keep other indices
than its neighbour (design choice; the paper's text on rotary embeddings is not known).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ecospa.attention import (
    CoupledAttention,
    attend,
    extend_cache,
    extend_cross_cache,
    head_rms_norm,
    rotate,
    split_heads,
    surviving_tables,
)
from ecospa.projections import project

Partners = Literal["halves", "neighbours"]
"""Distance of rotary partners: half the rotary width, or one."""


@dataclass(frozen=True)
class AttentionLayout:
    """Names of the parts of a family's attention module, and the places of its heads.

    Attributes:
        projections: of queries, keys and values; one name where one weight holds them all.
        per_head: the one weight holds [q | k | v] of the first key/value head, then of the next; else all queries, all
            keys, all values.
        output: the output projection.
        width: attribute with the head width.
        scaling: attribute with the softmax scale; "" where it is one over the root of the head width.
        dropout: attribute with the rate on attention weights, a number or a Dropout.
        after: attribute with the dropout of the output, a module or a rate; "" for none.
        window: "module" or "config" where the attention function is given a sliding window, and who holds it.
        options: name of another argument of the attention function -> attribute that holds it.
        clip: name in the config of the largest size of queries, keys and values.
        rotary: distance of rotary partners; "" where positions do not turn the heads.
        tables: likewise of the columns of one angle in the rotary tables; "single" where every angle has one column.
        sines_first: the rotary tables are given as (sines, cosines).
        rotary_width: attribute with the number of leading indices of a head that positions turn, None for all; "" where
            the configuration holds a share of the head.
        rotary_if: attribute that is false where a layer has no rotary embedding; "" where all have one.
        in_float32: queries and keys are cast to float32 before they are turned.
        norms: RMS norms of query and key heads; () for none.
        joint_norms: the norms go over all heads together, their weights along the projection.
        norm_offset: added to the norm weights.
    """

    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    per_head: bool = False
    output: str = "o_proj"
    width: str = "head_dim"
    scaling: str = "scaling"
    dropout: str = "attention_dropout"
    after: str = ""
    window: Literal["", "module", "config"] = ""
    options: tuple[tuple[str, str], ...] = ()
    clip: str = ""
    rotary: Literal["", "halves", "neighbours"] = ""
    tables: Literal["halves", "neighbours", "single"] = "halves"
    sines_first: bool = False
    rotary_width: str = ""
    rotary_if: str = ""
    in_float32: bool = False
    norms: tuple[str, ...] = ()
    joint_norms: bool = False
    norm_offset: float = 0.0

    @property
    def tracked(self) -> bool:
        """The module must know which original query/key indices survive."""
        return bool(self.rotary) or bool(self.norms and not self.joint_norms)


class LaidOutAttention(CoupledAttention):
    """Attention with the query/key width and the value width apart, by the layout of its family.

    Attributes:
        layout: of the family.
    """

    layout: ClassVar[AttentionLayout]

    def forward(
        self: Any,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        key_value_states: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention as in transformers; every surviving index keeps its frequency and its norm weight."""
        layout = self.layout
        if key_value_states is None:
            query, key, value = _heads(self, hidden_states)
            if layout.tracked:
                query, key = _placed(self, query, key, position_embeddings)
            key, value = extend_cache(self, key, value, kwargs.pop("layer_past", past_key_values), kwargs)
        else:
            query = split_heads(getattr(self, layout.projections[0])(hidden_states), self.geometry.query_heads)
            key, value = extend_cross_cache(self, key_value_states, layout.projections[1:], past_key_values, kwargs)
        kwargs |= {name: getattr(self, attribute) for name, attribute in layout.options}
        if layout.window:
            kwargs["sliding_window"] = getattr(
                self if layout.window == "module" else self.config, "sliding_window", None
            )
        scaling = getattr(self, layout.scaling) if layout.scaling else self.geometry.head_width**-0.5
        dropout = _rate(self, layout.dropout)
        output, weights = attend(self, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        output = getattr(self, layout.output)(output.flatten(-2).contiguous())
        if layout.after:
            output = torch.nn.functional.dropout(output, _rate(self, layout.after), self.training)
        return output, weights


def _rate(attention: Any, name: str) -> float:
    holder = getattr(attention, name)
    rate = getattr(holder, "p", holder)
    return float(rate) if attention.training and isinstance(rate, (int, float)) else 0.0


def _heads(attention: Any, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values by head, normed and clipped where the family does that."""
    layout, shape = attention.layout, attention.geometry
    groups, repeats, qk, vo = shape.groups, shape.repeats, shape.qk_width, shape.vo_width
    if layout.per_head:
        fused = getattr(attention, layout.projections[0])(states).unflatten(-1, (groups, -1))
        parts = [part.flatten(-2) for part in fused.split([repeats * qk, qk, vo], dim=-1)]
    elif len(layout.projections) == 1:
        fused = getattr(attention, layout.projections[0])(states)
        parts = list(fused.split([groups * repeats * qk, groups * qk, groups * vo], dim=-1))
    else:
        parts = list(project(attention, states, *layout.projections))
    if layout.joint_norms:
        for place, name in enumerate(layout.norms):
            heads = (shape.query_heads, groups)[place]
            parts[place] = joint_rms_norm(parts[place], getattr(attention, name), heads * shape.head_width)
    if layout.clip and (limit := getattr(attention.config, layout.clip)) is not None:
        parts = [part.clamp(min=-limit, max=limit) for part in parts]
    query, key, value = (
        split_heads(part, heads) for part, heads in zip(parts, (shape.query_heads, groups, groups), strict=True)
    )
    return query, key, value


def _placed(attention: Any, query: Tensor, key: Tensor, tables: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Queries and keys behind their norms, turned by the angle of their position where the layer does that."""
    layout, kept = attention.layout, attention.kept_qk
    full, turned = attention.geometry.head_width, rotary_width(attention, layout)
    places = kept  # where partners lie half a head apart
    if turned != full or (layout.rotary == "neighbours" and layout.norms):
        places = head_places(full, turned, layout.rotary or "halves", kept.device)[kept]
    if layout.rotary:
        query, key = (_in_couples(layout, heads, places, full == turned) for heads in (query, key))
    if layout.norms and not layout.joint_norms:
        query, key = (
            head_rms_norm(heads, _norm_weight(attention, name), _epsilon(getattr(attention, name)), places)
            for heads, name in zip((query, key), layout.norms, strict=True)
        )
    if not layout.rotary or (layout.rotary_if and not getattr(attention, layout.rotary_if)):
        return query, key
    assert tables is not None  # the block gives them
    cos, sin = surviving_tables(*_whole_tables(attention, *tables), kept)
    if layout.in_float32:
        return rotate(query.float(), cos, sin).to(query.dtype), rotate(key.float(), cos, sin).to(key.dtype)
    return rotate(query, cos, sin), rotate(key, cos, sin)


def _in_couples(layout: AttentionLayout, heads: Tensor, places: Tensor, whole: bool) -> Tensor:
    """Heads in the order of their pair: all first partners, then all second ones."""
    if layout.rotary == "neighbours":
        return torch.cat((heads[..., ::2], heads[..., 1::2]), -1)
    if whole:
        return heads
    batch, _, time, width = heads.shape
    order = places.argsort(-1).argsort(-1)[None, :, None, None]
    grouped = heads.reshape(batch, places.shape[0], -1, time, width)
    return grouped.gather(-1, order.expand_as(grouped)).flatten(1, 2)


def _whole_tables(attention: Any, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary tables of the original head width in the order of the pair; the angle is zero where nothing turns."""
    layout, width = attention.layout, attention.geometry.head_width
    turned = rotary_width(attention, layout)
    if cos.shape[-1] != (columns := turned // 2 if layout.tables == "single" else turned):
        raise ValueError(
            f"the rotary tables have {cos.shape[-1]} columns, {columns} belong to {turned} rotary indices of {width}; "
            "give position_embeddings of the model's own rotary embedding"
        )
    if layout.sines_first:
        cos, sin = sin, cos
    every = slice(0, None, 2) if layout.tables == "neighbours" else slice(0, turned // 2)
    rest = (width - turned) // 2
    cos = torch.nn.functional.pad(cos[..., every], (0, rest), value=1.0)
    sin = torch.nn.functional.pad(sin[..., every], (0, rest))
    return torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)


def _norm_weight(attention: Any, name: str) -> Tensor:
    weight: Tensor = getattr(attention, name).weight
    return weight + attention.layout.norm_offset if attention.layout.norm_offset else weight


def _epsilon(norm: Any) -> float:
    return float(norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps)


def joint_rms_norm(states: Float[Tensor, "batch time features"], norm: Any, full: int) -> Float[Tensor, ...]:
    """RMS norm over all heads together, with the denominator of their original width.

    x_j * w_j / sqrt(sum_k x_k^2 / full + eps): what the uncut norm gives when the removed entries are zero.

    Args:
        states: queries or keys of all heads.
        norm: module with a weight of their width now.
        full: original width of all heads.

    Returns:
        Normed states, same shape and dtype.
    """
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    normed = wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) / full + _epsilon(norm))
    result: Tensor = (norm.weight * normed).to(states.dtype)
    return result


def rotary_width(attention: Any, layout: AttentionLayout) -> int:
    """Number of leading indices of an uncut head that positions turn; all of them without a rotary embedding."""
    cut = isinstance(attention, CoupledAttention)
    width = attention.geometry.head_width if cut else getattr(attention, layout.width)
    if layout.rotary_width:
        turned = getattr(attention, layout.rotary_width)
        return int(width if turned is None else turned)
    parameters = getattr(attention.config, "rope_parameters", None) or {}
    return int(width * (parameters.get("partial_rotary_factor") or 1.0))


def head_places(
    width: int, turned: int, partners: Partners, device: torch.device | str = "cpu"
) -> Int64[Tensor, " width"]:
    """Place in a head of every index of a query/key pair, whose partners are j and j + width / 2.

    Args:
        width: of the uncut head, even.
        turned: leading places that are rotary, even; the others have partners for the sake of equal units.
        partners: distance of rotary partners.
        device: of the result.
    """
    places = torch.arange(width, device=device)
    if partners == "neighbours":
        return places.view(-1, 2).T.flatten()
    rotary, rest = places[:turned].view(2, -1), places[turned:].view(2, -1)
    return torch.cat((rotary, rest), 1).flatten()
