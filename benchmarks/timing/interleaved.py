"""Interleaved timing of several pieces of work, because machines slow down and speed up while they are measured."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

from ecospa.roofline import finish_work

NARROW = 0.01
"""Half of the width, as a share, at which the interval of a ratio is narrow enough."""
_BEYOND = 0.05


def interleave(
    steps: Sequence[Callable[[int], object]],
    turns: int,
    warm_up: int,
    device: str,
    ready: Sequence[Callable[[int], object]] = (),
    enough: Callable[[Sequence[Sequence[float]]], bool] | None = None,
) -> list[list[float]]:
    """Run pieces of work turn by turn and return the seconds of every counted turn.

    Args:
        steps: the work that is timed; each is called with the number of the turn.
        turns: that count, at most.
        warm_up: turns before them that do not.
        device: whose work has to be finished before the clock stops, such as "cuda".
        ready: per step what is called before its clock starts; nothing when empty.
        enough: told the seconds so far after every counted turn, one list per step; True ends the measurement.

    Returns:
        One list of at most `turns` seconds per step, all of one length.
    """
    seconds: list[list[float]] = [[] for _ in steps]
    for turn in range(warm_up + turns):
        for measured, step, prepare in zip(seconds, steps, ready or (_nothing,) * len(steps), strict=True):
            prepare(turn)
            finish_work(device)
            began = time.perf_counter()
            step(turn)
            finish_work(device)
            if turn >= warm_up:
                measured.append(time.perf_counter() - began)
        if turn >= warm_up and enough is not None and enough(seconds):
            break
    return seconds


def _nothing(turn: int) -> None:
    pass


def ratio(measured: Sequence[float], reference: Sequence[float]) -> float:
    """Median over turns of measured / reference: the two of a turn ran right after each other, whatever else ran."""
    return statistics.median(a / b for a, b in zip(measured, reference, strict=True))


def is_narrow(measured: Sequence[float], reference: Sequence[float], within: float = NARROW) -> bool:
    """Return whether the interval of `ratio` is at most 2 * within of it wide.

    The interval is that between order statistics: with j the largest number for which 2 P(B <= j) <= 0.05, where B is
    binomial of n turns and 1/2, the median lies between the j-th ratio from below and from above in 95 % of all cases,
    however ratios are distributed. It exists from six turns on. To stop by width, not by value, does not favour a side.

    Args:
        measured: seconds of every turn.
        reference: those of what it is compared with, in the same turns.
        within: half of the width, as a share of the ratio.
    """
    ratios = sorted(a / b for a, b in zip(measured, reference, strict=True))
    left_out = -1
    while 2 * _binomial(left_out + 1, len(ratios)) <= _BEYOND:
        left_out += 1
    if left_out < 0:
        return False
    return ratios[-1 - left_out] - ratios[left_out] <= 2 * within * statistics.median(ratios)


def _binomial(successes: int, trials: int) -> float:
    """P(B <= successes) of a fair coin."""
    return sum(math.comb(trials, k) for k in range(successes + 1)) / 2**trials
