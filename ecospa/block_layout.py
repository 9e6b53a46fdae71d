"""A family as data: where the projections of a block lie, and how its heads are laid out in them.

Most architectures differ in names, in the order of queries, keys and values within one weight, and in which indices of
a head are rotary partners. A family that says these three things gets its pairs, its geometry and its attention forward
from here (paper: attention and feed-forward blocks).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from ecospa.attention import CoupledAttention, HeadGeometry, original_indices
from ecospa.class_swap import original_class
from ecospa.families import Family, require_plain, unsupported
from ecospa.laid_out_attention import AttentionLayout, head_places, rotary_width
from ecospa.pairs import CoupledPair, PairKind, WeightAxis, head_index, input_axes, output_axes
from ecospa.projections import Mergeable
from ecospa.stock import ACTIVATION, LINEAR, Known, qualified
from ecospa.wrappers import unwrapped


@dataclass(frozen=True)
class FeedForwardLayout:
    """Projections of one feed-forward layer.

    Attributes:
        module: dotted name of the layer within the block; "" where its projections lie in the block itself.
        inputs: W_in, or gate and up, by their names within the layer.
        output: W_out.
        activation: name of the activation function within the layer.
        fused: the one input projection holds [gate | up].
        experts: projections are parameters (experts, out, in) of the layer, and not modules. All experts of a layer
            lose the same indices, so that they stay one tensor (Deviation: the paper has no mixture of experts). The
            grouped products of transformers want widths of whole 16 bytes, such as the default multiple of 8 gives.
    """

    module: str = "mlp"
    inputs: tuple[str, ...] = ("gate_proj", "up_proj")
    output: str = "down_proj"
    activation: str = "act_fn"
    fused: bool = False
    experts: bool = False


EXPERTS = FeedForwardLayout("mlp.experts", ("gate_up_proj",), fused=True, experts=True)


@dataclass(frozen=True)
class BlockLayout:
    """One transformer block.

    Attributes:
        models: folder of the model in transformers -> prefix of its classes, for all whose block has this layout.
        parts: dotted name of a module within the block ("" is the block itself) -> class names without the prefix, with
            spaces between, or qualified names of the classes that are known there. Projections and activation need not
            be named.
        attention: of the attention modules, which are all laid out alike.
        attentions: their dotted names within the block.
        cross: those of them that read keys and values from another sequence.
        feed_forward: the kinds of feed-forward layer that the configurations choose from.
        refused: dotted name of an attribute within the block -> why a block where it is set cannot be cut.
        whole: parameters of the block that no cut touches, such as a router's.
        joined_heads: why no head can leave without changing the others; "" where it can.
    """

    models: Mapping[str, str]
    parts: Mapping[str, str | frozenset[str]]
    attention: AttentionLayout
    attentions: tuple[str, ...] = ("self_attn",)
    cross: tuple[str, ...] = ()
    feed_forward: tuple[FeedForwardLayout, ...] = (FeedForwardLayout(),)
    refused: Mapping[str, str] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    joined_heads: str = ""


_JOINED = "its norms go over all heads together, so that the others would change with a removed one"


def block_family(home: str, name: str, layout: BlockLayout, attention: type[CoupledAttention]) -> Family:
    """The family of all blocks with one layout.

    Args:
        home: `__name__` of the family's file.
        name: short name for messages.
        layout: of the block.
        attention: the family's forward.
    """

    def find(block_name: str, block: nn.Module) -> Iterator[CoupledPair]:
        """All pairs of one block."""
        _require_interface(block_name, block)
        for place, reason in layout.refused.items():
            if _reach(block, place):
                raise unsupported(f"{block_name}.{place}", reason)
        for place in layout.attentions:
            if _reach(block, place) is not None:
                yield from _attention_pairs(block_name, block.get_submodule(place), place, layout.attention)
        present = [one for one in layout.feed_forward if hasattr(_reach(block, one.module), one.inputs[0])]
        if not present:
            raise unsupported(block_name, "none of its feed-forward layers is known")
        for inner in present:
            yield _feed_forward_pair(block_name, _reach(block, inner.module), inner)

    find.__module__ = home
    return Family(
        name=name,
        blocks=_classes(layout, layout.parts[""]),
        find=find,
        attention=attention,
        geometry=functools.partial(geometry, layout.attention),
        mergeable=_mergeable(layout),
        stock=_stock(layout),
        inputs=functools.partial(_inputs, layout),
        joined_heads=_JOINED if layout.attention.joint_norms else layout.joined_heads,
        whole=layout.whole,
    )


def _require_interface(name: str, block: nn.Module) -> None:
    """Refuse a block of a release of transformers that computes attention without the interface for it."""
    home = original_class(unwrapped(block)).__module__
    if not hasattr(sys.modules[home], "eager_attention_forward"):
        reason = f"{home} of this release computes attention without transformers' attention functions"
        raise unsupported(name, reason, "use a newer release of transformers")


def geometry(layout: AttentionLayout, attention: Any) -> HeadGeometry:
    """Widths of an attention module with a layout, cut or not."""
    if isinstance(attention, CoupledAttention):
        return attention.geometry
    width = int(getattr(attention, layout.width))
    if len(layout.projections) == 3:
        query, key = (getattr(attention, name).weight.shape[0] // width for name in layout.projections[:2])
    else:
        query = attention.config.num_attention_heads
        key = getattr(attention.config, "num_key_value_heads", None) or query
    return HeadGeometry(key, query // key, width, width, width, tracked=layout.tracked)


def _attention_pairs(block: str, attention: Any, place: str, layout: AttentionLayout) -> Iterator[CoupledPair]:
    """The QK and the VO pair of one attention module."""
    name = f"{block}.{place}"
    projections = _parts(name, attention, (*layout.projections, layout.output))
    require_plain(projections)
    shape = geometry(layout, attention)
    groups, repeats, qk, vo = shape.groups, shape.repeats, shape.qk_width, shape.vo_width
    order = _order(name, attention, layout, shape)
    # first position of queries, keys and values, and the distance from one key/value head to the next
    if layout.per_head:
        stride = (repeats + 1) * qk + vo
        starts = ((0, stride), (repeats * qk, stride), ((repeats + 1) * qk, stride))
    elif len(layout.projections) == 1:
        starts = ((0, repeats * qk), (groups * repeats * qk, qk), (groups * (repeats + 1) * qk, vo))
    else:
        starts = ((0, repeats * qk), (0, qk), (0, vo))
    (q, k, v), output = _three(list(projections.items())[:-1]), f"{name}.{layout.output}"
    query, key, value = (
        _index(groups, width, start, stride, copies)
        for (start, stride), width, copies in zip(starts, (qk, qk, vo), (repeats, 1, 1), strict=True)
    )
    query, key = (index.gather(1, order[:, :, None].expand_as(index)) for index in (query, key))
    left, right = output_axes(*q, query), output_axes(*k, key)
    if layout.joint_norms:
        left += (WeightAxis(f"{name}.{layout.norms[0]}.weight", 0, query),)
        right += (WeightAxis(f"{name}.{layout.norms[1]}.weight", 0, key),)
    yield CoupledPair(f"{name}.qk", PairKind.QK, groups, qk, 2 if layout.rotary else 1, name, block, left, right)
    left = output_axes(*v, value)
    right = input_axes(output, projections[output], _index(groups, vo, 0, repeats * vo, repeats))
    yield CoupledPair(f"{name}.vo", PairKind.VO, groups, vo, 1, name, block, left, right)


def _three(projections: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    return projections if len(projections) == 3 else projections * 3


def _index(groups: int, width: int, start: int, stride: int, repeats: int) -> Int64[Tensor, "groups width repeats"]:
    heads = head_index(1, width, start, repeats)
    return heads + stride * torch.arange(groups, device="cpu")[:, None, None]


def _order(name: str, attention: Any, layout: AttentionLayout, shape: HeadGeometry) -> Int64[Tensor, "groups qk_width"]:
    """Place in the head as it is now of every index of the query/key pair, whose partners are j and j + width / 2."""
    now = torch.arange(shape.qk_width, device="cpu").repeat(shape.groups, 1)
    if not layout.rotary:
        return now
    turned, full = rotary_width(attention, layout), shape.head_width
    if turned % 2 or full % 2:
        raise unsupported(name, f"{turned} of {full} indices of a head are rotary, which must both be even numbers")
    places = head_places(full, turned, layout.rotary)
    kept = original_indices(attention, shape)
    if kept.is_meta:  # nothing is known of a model without weights but its widths
        kept = torch.cat((now[:, : shape.qk_width // 2], now[:, : shape.qk_width // 2] + full // 2), 1)
    return places[kept.cpu()].argsort(-1).argsort(-1)


def _feed_forward_pair(block: str, layer: Any, layout: FeedForwardLayout) -> CoupledPair:
    name = f"{block}.{layout.module}" if layout.module else block
    projections: Mapping[str, Any] = _parts(name, layer, (*layout.inputs, layout.output))
    output, width = f"{name}.{layout.output}", _inner_width(projections[f"{name}.{layout.output}"])
    hidden = head_index(1, width)
    indices = (hidden, hidden + width) if layout.fused else (hidden,)
    if layout.experts:
        for part, weight in projections.items():
            _require_experts(part, weight)
        left = tuple(WeightAxis(f"{name}.{part}", 1, index) for part in layout.inputs for index in indices)
        right: tuple[WeightAxis, ...] = (WeightAxis(output, 2, hidden),)
    else:
        require_plain(projections)
        *inputs, (_, last) = projections.items()
        left = tuple(axis for part in inputs for index in indices for axis in output_axes(*part, index))
        right = input_axes(output, last, hidden)
    return CoupledPair(f"{name}.ffn", PairKind.FFN, 1, width, 1, name, block, left, right)


def _parts(name: str, owner: Any, parts: Iterable[str]) -> dict[str, Any]:
    """Projections of a module by their dotted names."""
    found = {f"{name}.{part}": getattr(owner, part, None) for part in parts}
    for part, projection in found.items():
        if projection is None:
            reason = f"{qualified(type(owner))} has no such part in this release of transformers"
            raise unsupported(part, reason, "use the newest release of transformers")
    return found


def _inner_width(output: Any) -> int:
    weight: Tensor = output if isinstance(output, Tensor) else output.weight
    return weight.shape[-1]


def _require_experts(name: str, weight: Any) -> None:
    if type(weight) is not nn.Parameter or weight.ndim != 3 or not weight.dtype.is_floating_point:
        found = f"a {type(weight).__module__}.{type(weight).__qualname__}"
        raise unsupported(name, f"it is {found}, not a plain parameter (experts, out, in)", "dequantise it first")


def _reach(block: Any, place: str) -> Any:
    """The object at a dotted name; None where the block has no such thing."""
    for part in place.split(".") if place else ():
        block = getattr(block, part, None)
    return block


def _classes(layout: BlockLayout, part: str | frozenset[str]) -> frozenset[str]:
    if isinstance(part, frozenset):
        return part
    return frozenset(
        f"transformers.models.{model}.modeling_{model}.{prefix}{name}"
        for model, prefix in layout.models.items()
        for name in part.split()
    )


def _stock(layout: BlockLayout) -> Known:
    heads = layout.attention
    linear = [f"{place}.{part}" for place in layout.attentions for part in (*heads.projections, heads.output)]
    activations = []
    for inner in layout.feed_forward:
        if not inner.experts:
            linear += [f"{inner.module}.{part}".lstrip(".") for part in (*inner.inputs, inner.output)]
        activations.append(f"{inner.module}.{inner.activation}".lstrip("."))
    return {
        **dict.fromkeys(linear, LINEAR),
        **dict.fromkeys(activations, ACTIVATION),
        **{place: _classes(layout, part) for place, part in layout.parts.items()},
    }


def _mergeable(layout: BlockLayout) -> tuple[Mergeable, ...]:
    names = layout.attention.projections
    if len(names) != 3:
        return ()
    return tuple(
        Mergeable("qkv", place, names, tuple(kind.rpartition(".")[2] for kind in _classes(layout, layout.parts[place])))
        for place in layout.attentions
        if place not in layout.cross
    )


def _inputs(layout: BlockLayout, block: nn.Module, states: Tensor) -> dict[str, Any]:
    """Rotary tables of random angles, one per couple, in the family's columns; another sequence where one is read."""
    given: dict[str, Any] = {"attention_mask": None}
    if layout.attention.rotary:
        turned = rotary_width(block.get_submodule(layout.attentions[0]), layout.attention)
        angles = torch.rand(1, states.shape[1], turned // 2, dtype=states.dtype, device=states.device).mul(6.0)
        if layout.attention.tables == "neighbours":
            angles = angles.repeat_interleave(2, -1)
        elif layout.attention.tables == "halves":
            angles = angles.repeat(1, 1, 2)
        given["position_embeddings"] = (angles.cos(), angles.sin())
    if any(_reach(block, place) is not None for place in layout.cross):
        given["encoder_hidden_states"] = torch.randn_like(states)
    return given
