"""Widths that a device prefers: multiples per kind of pair, and whether query/key and value widths stay equal.

A matrix that lost a few columns can be slower than it was: vector registers and matrix tiles are filled in multiples,
and fused attention that wants equal widths pads the narrower side. The table names the multiples worth trying; the
choice among them is measured (`width_timing`), or, where nothing can be measured, the coarsest that fits.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from ecospa.pairs import PairKind

_WORTH = 1.03  # a finer multiple may cost this much: it lets an event choose more freely
_STEADY = 1.02  # timings of equal work differ by as much


@dataclass(frozen=True)
class WidthRule:
    """Widths that a pair may have.

    Attributes:
        qk: query/key widths per head stay multiples of this many indices.
        vo: value/output widths per head likewise.
        ffn: widths of feed-forward layers likewise.
        tied: the query/key and the value/output pair of one attention module are cut as one and stay equally wide.
        reason: why, in words, as plans record it.
    """

    qk: int
    vo: int
    ffn: int
    tied: bool = False
    reason: str = "as configured"

    @classmethod
    def uniform(cls, multiple: int) -> WidthRule:
        """One multiple for all kinds, nothing tied."""
        return cls(multiple, multiple, multiple)

    def multiple(self, kind: PairKind) -> int:
        """Indices that widths of a kind are multiples of."""
        return {PairKind.QK: self.qk, PairKind.VO: self.vo, PairKind.FFN: self.ffn}[kind]


@dataclass(frozen=True)
class DeviceWidths:
    """A row of the device table.

    Attributes:
        heads: multiples of head widths that are worth trying, the finest first.
        ffn: multiples of feed-forward widths, likewise.
        why: what the hardware is like.
    """

    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    why: str


DEVICE_WIDTHS: Mapping[str, DeviceWidths] = {
    "cpu": DeviceWidths((8, 16), (16, 64), "vector registers hold 8 or 16 numbers"),
    "cuda": DeviceWidths((8, 16), (64, 128), "matrix units read 16 bytes at once, tiles are 64 to 128 wide"),
}
"""By type of device."""


def fitting(candidates: tuple[int, ...], width: int) -> tuple[int, ...]:
    """Multiples that leave at least one cut of a width; finer ones where none of the candidates does.

    Args:
        candidates: multiples, the finest first.
        width: narrowest width that is to be cut, in indices.
    """
    found = tuple(multiple for multiple in candidates if 2 * multiple <= width)
    return found or (next(multiple for multiple in (8, 4, 2, 1) if 2 * multiple <= width or multiple == 1),)


def odd_multiple(width: float, multiple: int) -> int:
    """The odd number of multiples that is nearest to a width: no coarser multiple has that width."""
    return multiple * (2 * max(0, round((width / multiple - 1) / 2)) + 1)


def choose_multiple(times: Mapping[int, Mapping[int, float]]) -> tuple[int, str]:
    """The finest multiple whose widths cost no more than those of the coarsest, and never more when they shrink.

    Costs are compared with the straight line, time over width, through the widths of the coarsest multiple.

    Args:
        times: multiple -> width -> seconds; widths of the coarsest span the range of all.

    Returns:
        The multiple, and the measurement in words.
    """
    coarsest = max(times)
    slope, offset = statistics.linear_regression(list(times[coarsest]), list(times[coarsest].values()))
    told = []
    for multiple in sorted(times):
        measured = times[multiple]
        excess = statistics.median(seconds / (slope * width + offset) for width, seconds in measured.items())
        slower = max(_growth(measured), default=0.0)
        told.append(f"{multiple} costs {excess:.2f} of {coarsest}")
        if slower > _STEADY:
            told[-1] += f" and a narrower width {slower:.2f} of a wider one"
        if multiple == coarsest or (excess <= _WORTH and slower <= _STEADY):
            return multiple, ", ".join(told)
    raise AssertionError("the coarsest multiple is always taken")


def _growth(measured: Mapping[int, float]) -> Iterator[float]:
    """Time of every width over that of the next wider one."""
    descending = [measured[width] for width in sorted(measured, reverse=True)]
    return (after / before for before, after in pairwise(descending))
