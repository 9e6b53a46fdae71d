"""Means, intervals and paired differences against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from paper_tables.analysis.formats import decimals, difference, quantity, ratio, share
from paper_tables.analysis.intervals import (
    Interval,
    detectable,
    mean_interval,
    p_equivalent,
    p_value,
    paired_difference,
    paired_ratio,
    t_quantile,
)


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042), (31, 2.0395), (60, 2.0003), (120, 1.9799)],
)
def test_quantiles_are_those_of_the_printed_table(degrees: int, quantile: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile, abs=5e-4)


def test_quantiles_fall_towards_the_normal_one() -> None:
    found = [t_quantile(degrees) for degrees in range(1, 400)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(1.966, abs=5e-4)


@pytest.mark.parametrize(
    ("degrees", "t", "p"),
    # the printed table; in closed form 1 - 2 atan(t) / pi for one degree, 1 - t / sqrt(t t + 2) for two
    [(1, 1.0, 0.5), (2, 4.3027, 0.05), (2, 1.0, 1 - 1 / math.sqrt(3)), (7, 2.3646, 0.05), (7, 3.4995, 0.01)],
)
def test_p_values_are_tail_areas_of_student(degrees: int, t: float, p: float) -> None:
    # an interval whose mean is t standard errors from zero
    effect = Interval(-t, t_quantile(degrees), degrees + 1)
    assert p_value(effect) == pytest.approx(p, abs=2e-5)
    assert p_value(effect, neutral=-t) == 1.0
    assert p_value(effect.mirrored(), neutral=1.0) == p_value(Interval(t - 1.0, effect.half_width, effect.n))


def test_p_values_agree_with_intervals_at_their_ends() -> None:
    effect = Interval(0.3, 0.2, 8)
    assert [p_value(effect, 0.1), p_value(effect, 0.5)] == pytest.approx([0.05, 0.05])
    assert [p_equivalent(effect, 0.3, 0.2), p_equivalent(effect, 0.2, 0.3)] == pytest.approx([0.05, 0.05])
    assert p_equivalent(effect, 0.3, 0.21) < 0.05 < p_equivalent(effect, 0.3, 0.19)
    assert p_equivalent(effect, 0.0, 0.2) == 1.0


def test_p_values_without_spread_and_of_one_seed() -> None:
    assert p_value(Interval(0.1, 0.0, 3)) == 0.0 and p_value(Interval(0.0, 0.0, 3)) == 1.0
    assert p_value(Interval(0.1, math.inf, 1)) == 1.0 and p_equivalent(Interval(0.0, math.inf, 1), 0.0, 1.0) == 1.0


def test_detectable_difference() -> None:
    # s = 1, n = 8: (2.3646 + 0.8960) / sqrt(8); n = 3: (4.3027 + 1.0607) / sqrt(3)
    assert detectable(Interval(5.0, 2.36462 / math.sqrt(8), 8)) == pytest.approx(1.1528, abs=1e-4)
    assert detectable(Interval(5.0, 4.30265 / math.sqrt(3), 3)) == pytest.approx(3.0966, abs=1e-4)
    assert detectable(Interval(5.0, math.inf, 1)) is None and detectable(Interval(5.0, 0.0, 3)) == 0.0


@pytest.mark.parametrize("degrees", [0, -3])
def test_no_quantile_without_degrees_of_freedom(degrees: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        t_quantile(degrees)


def test_mean_and_interval_of_three_values() -> None:
    # mean 12, deviations -2, 0, 2: variance 8 / 2 = 4, s = 2; 4.3027 * 2 / sqrt(3) = 4.9683
    found = mean_interval([10.0, 12.0, 14.0])
    assert found.mean == 12.0
    assert found.half_width == pytest.approx(4.9683, abs=1e-4)
    assert (found.low, found.high) == (pytest.approx(7.0317, abs=1e-4), pytest.approx(16.9683, abs=1e-4))
    assert found.n == 3


def test_one_value_has_no_interval_and_none_is_an_error() -> None:
    found = mean_interval([5.0])
    assert (found.mean, found.low, found.high, found.n) == (5.0, -math.inf, math.inf, 1)
    with pytest.raises(ValueError, match="empty"):
        mean_interval([])


def test_differences_are_paired_by_seed() -> None:
    # The seeds differ by 10, the methods by 1, 2, 3: mean 2, s = 1, 4.3027 / sqrt(3) = 2.4842
    ours, theirs = {0: 11.0, 1: 22.0, 2: 33.0, 7: 500.0}, {2: 30.0, 1: 20.0, 0: 10.0, 9: -500.0}
    found = paired_difference(ours, theirs)
    assert found is not None
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half_width == pytest.approx(2.4842, abs=1e-4)


def test_ratios_are_paired_by_seed_and_foreign_seeds_do_not_pair() -> None:
    found = paired_ratio({0: 5.0, 1: 30.0}, {0: 10.0, 1: 40.0})
    assert found is not None and found.mean == pytest.approx(0.625)
    assert paired_ratio({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({}, {}) is None


def test_mirrored_keeps_the_width() -> None:
    found = Interval(2.0, 0.5, 3).mirrored()
    assert (found.low, found.high) == (-2.5, -1.5)


@pytest.mark.parametrize(
    ("interval", "kind", "text"),
    [
        (Interval(57.3381, 0.4261, 3), "plain", "57.34 ± 0.43"),
        (Interval(57.3381, 12.61, 3), "plain", "57 ± 13"),
        (Interval(57.3381, math.inf, 1), "plain", "57.34"),
        (Interval(57.3381, 0.0, 3), "plain", "57.34"),
        (Interval(1_234_567.0, 0.0, 3), "count", "1.235 M"),
        (Interval(6.02e12, 3e10, 3), "count", "6.020 ± 0.030 T"),
        (Interval(0.04123, 0.0011, 3), "milliseconds", "41.2 ± 1.1 ms"),
        (Interval(6.5e8, 0.0, 3), "megabytes", "650.0 MB"),
        (Interval(0.0, 0.0, 3), "plain", "0"),
        (None, "plain", "-"),
    ],
)
def test_quantities_read_well(interval: Interval | None, kind: str, text: str) -> None:
    assert quantity(interval, kind) == text


def test_differences_ratios_and_shares_read_well() -> None:
    assert difference(Interval(-0.4213, 0.2, 3)) == "-0.421 [-0.621, -0.221]"
    assert difference(Interval(2.5, math.inf, 1)) == "+2.50"
    assert ratio(Interval(0.714, 0.02, 3)) == "0.71 [0.69, 0.73]"
    assert ratio(Interval(0.714, math.inf, 1)) == "0.71"
    assert [share(None), share(0.5), share(0.025)] == ["all", "50%", "2.5%"]
    assert [decimals(0.00123), decimals(12.3), decimals(99999.0), decimals(0)] == [6, 2, 0, 0]
