"""Multiples of widths by kind of pair, and the smallest model that they leave room for.

A head of 64 cannot be cut to a smaller multiple of 64, so with one multiple for all pairs only feed-forward layers
shrink, and 30 % of the blocks is out of reach. That is arithmetic of shapes: a plan can tell it before anything is
built, and imports no torch for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Protocol


@dataclass(frozen=True)
class Multiples:
    """Multiples that widths stay: of query/key and value widths per head, and of feed-forward layers."""

    qk: int
    vo: int
    ffn: int


WidthMultiple = int | Multiples
"""One multiple for all pairs, or one by kind."""


class Shape(Protocol):
    """Sizes that `benchmarks.specs.synthetic.ModelShape` has."""

    @property
    def name(self) -> str:
        """The family."""

    @property
    def width(self) -> int:
        """Width of the residual stream."""

    @property
    def heads(self) -> int:
        """Query heads."""

    @property
    def hidden(self) -> int | None:
        """Width of the feed-forward layers; None for the family's own proportion."""


def by_kind(multiple: WidthMultiple) -> Multiples:
    """The multiples of every kind, where one may stand for all."""
    return Multiples(multiple, multiple, multiple) if isinstance(multiple, int) else multiple


def shown(multiple: WidthMultiple) -> str:
    """The multiples in words."""
    if isinstance(multiple, int):
        return f"multiples of {multiple}"
    heads = str(multiple.qk) if multiple.qk == multiple.vo else f"{multiple.qk} and {multiple.vo}"
    return f"multiples of {heads} (heads) and {multiple.ffn} (feed-forward)"


def smallest_share(shape: Shape, multiple: WidthMultiple) -> float:
    """The smallest share of a model's block parameters that can be left, every pair at one multiple.

    Queries, keys, values and outputs have d parameters per index of all heads, gated feed-forward layers 3 d per index,
    others 2 d; the biases of all but LLaMA count one more per index of an output.

    Args:
        shape: of GPT-2, BERT or ViT, or of a LLaMA, with as many key/value heads as query heads or half of them.
        multiple: of the widths; a pair that is not wider stays as it is.
    """
    wanted, rotary = by_kind(multiple), shape.name.startswith("llama")
    head = shape.width // shape.heads
    narrow_qk = min(head, lcm(wanted.qk, 2) if rotary else wanted.qk)
    narrow = narrow_qk, min(head, wanted.vo), min(hidden_width(shape), wanted.ffn)
    whole = head, head, hidden_width(shape)
    return _block_parameters(shape, *narrow) / _block_parameters(shape, *whole)


def hidden_width(shape: Shape) -> int:
    """Width of the feed-forward layers: as given, or in the proportion of the family."""
    if shape.hidden is not None:
        return shape.hidden
    return gated_width(shape.width) if shape.name.startswith("llama") else 4 * shape.width


def gated_width(width: int) -> int:
    """Width of the gated feed-forward layer: that of GaLore's models, else 8/3 of the residual width in eights."""
    published = {512: 1376, 768: 2048, 1024: 2736, 2048: 5461, 4096: 11008}
    return published.get(width) or -(-8 * width // 24) * 8


def _block_parameters(shape: Shape, qk: int, vo: int, inner: int) -> int:
    """Parameters of one block at these widths, norms and biases that never leave with them."""
    width, heads = shape.width, shape.heads
    if shape.name.startswith("llama"):
        groups = heads // 2 if shape.name == "llama_grouped" else heads
        return (qk + vo) * (heads + groups) * width + 3 * inner * width + 2 * width
    in_heads = heads * (2 * qk * (width + 1) + vo * (2 * width + 1))
    return in_heads + inner * (2 * width + 1) + 6 * width
