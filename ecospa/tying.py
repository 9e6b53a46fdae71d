"""Query/key and value/output widths of one attention module that are cut as one, so that they stay equal.

Fused attention on the CPU and flash attention want equal widths; where they differ the narrower side is padded with
zeros and its cut saves nothing inside the kernel. Tied pairs are one entry for the choice of widths, in units that both
have; which indices each of them keeps is still its own scores' choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm

import torch
from jaxtyping import Float
from torch import Tensor

from ecospa.pairs import CoupledPair, PairKind
from ecospa.selection import PairWidth

Twins = tuple[CoupledPair, CoupledPair]
"""The query/key pair and the value/output pair of one attention module."""


def twins(pairs: Sequence[CoupledPair]) -> tuple[Twins, ...]:
    """Pairs of one attention module that are equally wide now; what has become unequal is left alone."""
    values = {pair.module: pair for pair in pairs if pair.kind is PairKind.VO}
    both = ((pair, values.get(pair.module)) for pair in pairs if pair.kind is PairKind.QK)
    return tuple((query, value) for query, value in both if value is not None and value.width == query.width)


def tie(tied: Sequence[Twins], widths: Mapping[str, PairWidth], *, shares: bool = True) -> dict[str, PairWidth]:
    """All pairs as the choice of widths sees them, twins as one entry under the query/key pair's name.

    Args:
        tied: the twins.
        widths: every pair by name, each in its own units.
        shares: scores of a query/key and a value/output pair have different scales, so shares of them are added; False
            adds the scores, which have one scale (effects on the loss).
    """
    joint = {query.name: _joint(query, value, widths, shares) for query, value in tied}
    second = {value.name for _, value in tied}
    return {name: joint.get(name, width) for name, width in widths.items() if name not in second}


def tie_values(tied: Sequence[Twins], values: Mapping[str, float]) -> dict[str, float]:
    """Importances of the entries of `tie`: of twins, which have two matrices each, the mean."""
    joint = {query.name: (values[query.name] + values[value.name]) / 2 for query, value in tied}
    second = {value.name for _, value in tied}
    return {name: joint.get(name, number) for name, number in values.items() if name not in second}


def untie(tied: Sequence[Twins], chosen: Mapping[str, float]) -> dict[str, float]:
    """Widths of the entries of `tie` as widths of every pair, each in its own units."""
    found = dict(chosen)
    for query, value in tied:
        if query.name in chosen:
            indices = chosen[query.name] * _unit(query, value)
            found[query.name], found[value.name] = indices / query.unit, indices / value.unit
    return found


def _unit(query: CoupledPair, value: CoupledPair) -> int:
    return lcm(query.unit, value.unit)


def _joint(query: CoupledPair, value: CoupledPair, widths: Mapping[str, PairWidth], shares: bool) -> PairWidth:
    unit = _unit(query, value)
    parts = [(widths[pair.name], unit // pair.unit) for pair in (query, value)]
    return PairWidth(
        width=query.width // unit,
        step=lcm(*(part.step * pair.unit for (part, _), pair in zip(parts, (query, value), strict=True)), unit) // unit,
        floor=max(-(-part.floor // units) for part, units in parts),
        unit_parameters=sum(part.unit_parameters * units for part, units in parts),
        retained=torch.stack([(_share(p.retained) if shares else p.retained)[::units] for p, units in parts]).sum(0),
        wanted=min(part.wanted / units for part, units in parts),
    )


def _share(retained: Float[Tensor, " units_plus_one"]) -> Float[Tensor, " units_plus_one"]:
    """Retained score as a share of all: norms of queries and of values have different scales."""
    return retained / retained[-1] if retained[-1] > 0 else torch.linspace(0, 1, len(retained), dtype=retained.dtype)
