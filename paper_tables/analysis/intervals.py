"""Means with 95% intervals over seeds, and differences between methods paired by seed.

Seeds are few, so Student's t decides, and two methods are compared seed by seed: the same seed means the same start and
the same order of the data, and what seeds have in common must not blur the difference. No part of the paper, whose
tables give single numbers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

# Student's t, 97.5% quantile for 1 to 30 degrees of freedom; a table keeps scipy out of the report's dependencies.
_T = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)
_Z = 1.959964
LARGEST = 1e100
"""Beyond it a number is an overflow on its way: its square, or a sum, may not be a number any more."""


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds and half the width of its 95% interval (infinite for one seed)."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width

    def mirrored(self) -> Interval:
        """Return the interval of the negated value."""
        return Interval(-self.mean, self.half_width, self.n)


def t_quantile(degrees: int) -> float:
    """Return the two-sided 95% quantile of Student's t; ValueError below one degree of freedom.

    Beyond the table z + (z^3 + z) / (4 d) + (5 z^5 + 16 z^3 + 3 z) / (96 d^2): Abramowitz and Stegun 26.7.5.
    """
    if degrees < 1:
        raise ValueError(f"degrees is {degrees}; it must be at least 1, so at least two values are needed")
    if degrees <= len(_T):
        return _T[degrees - 1]
    return _Z + (_Z**3 + _Z) / (4 * degrees) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * degrees**2)


def mean_interval(values: Iterable[float]) -> Interval:
    """Return mean and 95% interval, mean +- t s / sqrt(n) with s the sample deviation; ValueError without values.

    NaN where a value is too large to be squared.
    """
    sample = list(values)
    if not sample:
        raise ValueError("values is empty; a mean needs at least one value")
    n = len(sample)
    if any(abs(value) > LARGEST or math.isnan(value) for value in sample):
        return Interval(math.nan, math.inf, n)
    if n == 1:
        return Interval(sample[0], math.inf, 1)
    return Interval(statistics.fmean(sample), t_quantile(n - 1) * statistics.stdev(sample) / math.sqrt(n), n)


def paired_difference(left: Mapping[int, float], right: Mapping[int, float]) -> Interval | None:
    """Return the interval of left - right over the seeds that both have; None if they share none."""
    return _paired(left, right, lambda a, b: a - b)


def paired_ratio(left: Mapping[int, float], right: Mapping[int, float]) -> Interval | None:
    """Return the interval of left / right over the seeds that both have; None if they share none, NaN over zero."""
    return _paired(left, right, lambda a, b: a / b if b else math.nan)


def _paired(
    left: Mapping[int, float], right: Mapping[int, float], combine: Callable[[float, float], float]
) -> Interval | None:
    seeds = sorted(left.keys() & right.keys())
    return mean_interval(combine(left[seed], right[seed]) for seed in seeds) if seeds else None
