"""Pearson's and Spearman's correlation of predicted and true numbers, as GLUE judges STS-B by."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pearson(one: ArrayLike, other: ArrayLike) -> float:
    """Pearson's correlation, 0 where one side is constant: whoever says the same of everything follows nothing.

    Args:
        one: (examples,) numbers.
        other: (examples,) numbers.

    Raises:
        ValueError: fewer than two examples, not equally many, or a number that is not finite.
    """
    x, y = _sides(one, other)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Pearson's correlation of the ranks, equal numbers sharing the mean of theirs; arguments as `pearson`."""
    x, y = _sides(one, other)
    return pearson(ranks(x), ranks(y))


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1, equal values sharing the mean of theirs; (examples,) -> (examples,)."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    mean: NDArray[np.float64] = (last - (counts - 1) / 2.0)[inverse]
    return mean


def _sides(one: ArrayLike, other: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (np.asarray(side, dtype=np.float64) for side in (one, other))
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"the sides have shapes {x.shape} and {y.shape}; give two as long, of at least 2 numbers")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a number is NaN or infinite; correlations need finite ones")
    return x, y
