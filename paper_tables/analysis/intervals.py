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

from scipy import special  # type: ignore[import-untyped]

POWER = 0.8
"""Probability with which a true difference of the detectable size is told from none."""
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


def t_quantile(degrees: int, probability: float = 0.975) -> float:
    """Return a quantile of Student's t, by default the two-sided 95% one; ValueError below one degree of freedom."""
    if degrees < 1:
        raise ValueError(f"degrees is {degrees}; it must be at least 1, so at least two values are needed")
    return float(special.stdtrit(degrees, probability))


def p_value(interval: Interval, neutral: float = 0.0) -> float:
    """Return the two-sided p-value of Student's t test of "the mean is `neutral`"; 1 for one seed.

    Without any spread over seeds it is 0, or 1 where the mean is `neutral`.
    """
    return _two_sided(interval, abs(interval.mean - neutral))


def p_equivalent(interval: Interval, neutral: float, margin: float) -> float:
    """Return twice the larger p-value of the two one-sided tests of "the mean is within `margin` of `neutral`".

    It is below 0.05 just where the 95% interval lies inside of the margin.
    """
    inside = margin - abs(interval.mean - neutral)
    return _two_sided(interval, inside) if inside > 0 else 1.0


def detectable(interval: Interval) -> float | None:
    """Return the smallest difference that as many seeds with this spread detect: two-sided 5%, power POWER.

    (t_{0.975, n-1} + t_{0.8, n-1}) s / sqrt(n); None for one seed.
    """
    if not math.isfinite(interval.half_width):
        return None
    degrees = interval.n - 1
    return interval.half_width * (1 + t_quantile(degrees, POWER) / t_quantile(degrees))


def _two_sided(interval: Interval, distance: float) -> float:
    if not math.isfinite(interval.half_width) or not math.isfinite(distance) or distance == 0:
        return 1.0
    if interval.half_width == 0:
        return 0.0
    degrees = interval.n - 1
    return float(2 * special.stdtr(degrees, -distance / interval.half_width * t_quantile(degrees)))


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
