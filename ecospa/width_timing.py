"""Measures which widths a device likes: attention and feed-forward layer of a model's shape at several widths.

What is timed is forward and backward of the products that a width enters, and the fused attention between them, on
random numbers, taking turns. It takes a few seconds and happens once, before training; `CoupledSparsifier` keeps the
rule with its state, so that a resumed run does not measure again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ecospa.attention import pad_to_equal, wants_equal_widths
from ecospa.config import ConfigError
from ecospa.families import coupled_pairs
from ecospa.pairs import CoupledPair, PairKind
from ecospa.roofline import finish_work
from ecospa.width_rule import DEVICE_WIDTHS, WidthRule, choose_multiple, fitting, odd_multiple

_TURNS = 7
_SHARES = (0.875, 0.625, 0.375)  # of the whole width; each goes to the nearest odd multiple, which no coarser one has
_TOKENS: Mapping[str, tuple[int, int]] = {"cpu": (2, 128), "cuda": (16, 1024)}  # sequences, tokens of each
_UNEQUAL = 1.03  # unequal head widths that cost more than this are not worth having

Step = Callable[[], None]


@dataclass(frozen=True)
class _Layer:
    """One attention and one feed-forward layer of the model that is to be cut, and where it is measured."""

    hidden: int
    groups: int
    repeats: int
    head_width: int
    inner: int
    matrices: int  # 2 where a gate goes with the first matrix
    attention: str  # implementation, as transformers calls it
    device: str
    dtype: torch.dtype

    @property
    def tokens(self) -> tuple[int, int]:
        """Sequences, and tokens of each."""
        return _TOKENS[self.device]


def device_rule(
    model: nn.Module, device: str | None = None, measure: bool = True, pairs: Sequence[CoupledPair] | None = None
) -> WidthRule:
    """Multiples by kind of pair: of the device table's, the finest that cost no time, as measured now.

    Args:
        model: of a supported family; what is measured is in the dtype of its weights, under autocast too.
        device: "cpu" or "cuda"; None is the model's own.
        measure: False, or a device that is not here, gives the coarsest multiples of the table.
        pairs: the model's pairs as they are now, where the caller has them.

    Returns:
        The rule, its reason in words.

    Raises:
        ConfigError: the table has no row for the device.
    """
    pairs = coupled_pairs(model) if pairs is None else pairs
    layer = _layer(model, pairs, device)
    if layer.device not in DEVICE_WIDTHS:
        raise ConfigError(
            f"width_multiple is 'auto', and nothing is known of device {layer.device!r}, only of "
            f"{', '.join(DEVICE_WIDTHS)}; give a number, such as 8"
        )
    table = DEVICE_WIDTHS[layer.device]
    heads = fitting(table.heads, min(pair.width for pair in pairs if pair.kind is not PairKind.FFN))
    inner = fitting(table.ffn, min(pair.width for pair in pairs if pair.kind is PairKind.FFN))
    if not measure or (layer.device == "cuda" and not torch.cuda.is_available()):
        why = f"{layer.device}: {table.why}; not measured, so the coarsest multiples of the table"
        return WidthRule(heads[-1], heads[-1], inner[-1], layer.attention != "eager", why)
    head, of_heads = choose_multiple(
        _times(layer, heads, layer.head_width, lambda width: _attention(layer, width, width))
    )
    wide, of_inner = choose_multiple(_times(layer, inner, layer.inner, lambda width: _feed_forward(layer, width)))
    tied, of_tying = _tied(layer, head)
    why = f"{layer.device}: {table.why}; measured: heads {of_heads}; feed-forward {of_inner}; {of_tying}"
    return WidthRule(head, head, wide, tied, why)


def layer_times(
    model: nn.Module, heads: Sequence[tuple[int, int]], inner: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Seconds of one attention layer and of one feed-forward layer of a model's shape at several widths, interleaved.

    Args:
        model: of a supported family, on the device that is measured.
        heads: (query/key width, value/output width) per head.
        inner: widths of feed-forward layers.

    Returns:
        Seconds by entry of `heads`, and by entry of `inner`.
    """
    layer = _layer(model, coupled_pairs(model), None)
    works = [*(_attention(layer, qk, vo) for qk, vo in heads), *(_feed_forward(layer, width) for width in inner)]
    seconds = _fastest(works, layer.device, 3 * _TURNS)  # widths of one index more or less are told apart
    return seconds[: len(heads)], seconds[len(heads) :]


def _layer(model: nn.Module, pairs: Sequence[CoupledPair], device: str | None) -> _Layer:
    query = next(pair for pair in pairs if pair.kind is PairKind.QK)
    inner = next(pair for pair in pairs if pair.kind is PairKind.FFN)
    matrices = [axis for axis in inner.left if model.get_parameter(axis.parameter).ndim > 1]
    first = model.get_parameter(matrices[0].parameter)
    own = "cuda" if first.device.type == "meta" else first.device.type  # large models are planned for accelerators
    return _Layer(
        hidden=first.shape[-2 if matrices[0].axis == first.ndim - 1 else -1],  # experts are (experts, out, in)
        groups=query.groups,
        repeats=query.left[0].index.shape[2],
        head_width=query.width,
        inner=inner.width,
        matrices=len(matrices),
        attention=getattr(getattr(model, "config", None), "_attn_implementation", None) or "sdpa",
        device=own if device is None else device,
        dtype=first.dtype,
    )


def _tied(layer: _Layer, multiple: int) -> tuple[bool, str]:
    """Return whether heads of unequal widths cost more than equal ones that have as many parameters in all."""
    if layer.attention == "eager":
        return False, "eager attention takes unequal head widths"
    whole, narrow = layer.head_width, odd_multiple(layer.head_width / 2, multiple)
    widths = ((whole, whole), (narrow, narrow), (whole, narrow), (narrow, whole))
    seconds = _fastest([_attention(layer, qk, vo) for qk, vo in widths], layer.device)
    ratio = sum(seconds[2:]) / sum(seconds[:2])
    return ratio > _UNEQUAL, f"head widths of {narrow} beside {whole} cost {ratio:.2f} of equal ones"


def _times(
    layer: _Layer, candidates: Sequence[int], whole: int, work: Callable[[int], Step]
) -> dict[int, dict[int, float]]:
    """Seconds by multiple and width: the whole width and some that only this multiple has."""
    points = [
        (multiple, width)
        for multiple in candidates
        for width in sorted({whole, *(odd_multiple(share * whole, multiple) for share in _SHARES)})
    ]
    found: dict[int, dict[int, float]] = {multiple: {} for multiple in candidates}
    seconds = _fastest([work(width) for _, width in points], layer.device)
    for (multiple, width), value in zip(points, seconds, strict=True):
        found[multiple][width] = value
    return found


def _fastest(works: Sequence[Step], device: str, turns: int = _TURNS) -> list[float]:
    """Seconds of every piece of work, the fastest of several turns, which other work can have delayed least."""
    best = [float("inf")] * len(works)
    for turn in range(turns + 1):
        for number, work in enumerate(works):
            began = time.perf_counter()
            work()
            finish_work(device)
            if turn:  # the first one allocates
                best[number] = min(best[number], time.perf_counter() - began)
    return best


def _feed_forward(layer: _Layer, width: int) -> Step:
    batch, length = layer.tokens
    states = _random(layer, batch * length, layer.hidden)
    first = [_random(layer, layer.hidden, width) for _ in range(layer.matrices)]
    second = _random(layer, width, layer.hidden)

    def step() -> None:
        inner = gelu(states @ first[0])
        for matrix in first[1:]:
            inner = inner * (states @ matrix)
        _backward(inner @ second, states, *first, second)

    return step


def _attention(layer: _Layer, qk: int, vo: int) -> Step:
    batch, length = layer.tokens
    heads = layer.groups * layer.repeats
    states = _random(layer, batch, length, layer.hidden)
    counts = (heads, layer.groups, layer.groups)
    inputs = [_random(layer, layer.hidden, count * width) for count, width in zip(counts, (qk, qk, vo), strict=True)]
    output = _random(layer, heads * vo, layer.hidden)
    pads = qk != vo and wants_equal_widths(layer.attention, layer.device)

    def step() -> None:
        query, key, value = (
            (states @ matrix).view(batch, length, count, -1).transpose(1, 2)
            for matrix, count in zip(inputs, counts, strict=True)
        )
        if pads:
            query, key, value = pad_to_equal(query, key, value)
        mixed = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=layer.repeats > 1)
        _backward(mixed[..., :vo].transpose(1, 2).flatten(2) @ output, states, *inputs, output)

    return step


def _random(layer: _Layer, *sizes: int) -> Tensor:
    generator = torch.Generator(layer.device).manual_seed(0)
    numbers = torch.randn(*sizes, generator=generator, device=layer.device).div(sizes[-1] ** 0.5)
    return numbers.to(layer.dtype).requires_grad_()


def _backward(result: Tensor, *inputs: Tensor) -> None:
    torch.autograd.grad(result, inputs, torch.ones_like(result))
