"""Interleaved timing of several pieces of work, because machines slow down and speed up while they are measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from ecospa.roofline import finish_work


def interleave(
    steps: Sequence[Callable[[int], object]],
    turns: int,
    warm_up: int,
    device: str,
    ready: Sequence[Callable[[int], object]] = (),
) -> list[list[float]]:
    """Run pieces of work turn by turn and return the seconds of every counted turn.

    Args:
        steps: the work that is timed; each is called with the number of the turn.
        turns: that count.
        warm_up: turns before them that do not.
        device: whose work has to be finished before the clock stops, such as "cuda".
        ready: per step what is called before its clock starts; nothing when empty.

    Returns:
        One list of `turns` seconds per step.
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
    return seconds


def _nothing(turn: int) -> None:
    pass


def ratio(measured: Sequence[float], reference: Sequence[float]) -> float:
    """Median over turns of measured / reference: the two of a turn ran right after each other, whatever else ran."""
    return statistics.median(a / b for a, b in zip(measured, reference, strict=True))
