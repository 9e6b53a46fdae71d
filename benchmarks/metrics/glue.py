"""GLUE's metrics: accuracy, F1 of class 1, Matthews' correlation, Pearson's and Spearman's correlation.

scikit-learn and scipy count; whoever says the same of everything has a correlation of 0 here, where they say NaN.
They are imported when they count: this folder is scanned in every run, whose memory may be what is measured.
Matthews' correlation is 0 for chance as well; accuracy and F1 are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Labels = NDArray[np.int64]


def accuracy(predicted: Labels, true: Labels) -> float:
    """Share of the examples that are labelled right.

    Args:
        predicted: (examples,) numbers of classes.
        true: (examples,).

    Raises:
        ValueError: there are no examples, or not equally many.
    """
    _check(predicted, true)
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(true, predicted))


def f1(predicted: Labels, true: Labels) -> float:
    """F1 of class 1: 2 tp / (2 tp + fp + fn), 0 where that class is neither there nor predicted; as `accuracy`."""
    _check(predicted, true)
    from sklearn.metrics import f1_score

    return float(f1_score(true == 1, predicted == 1, zero_division=0.0))


def matthews(predicted: Labels, true: Labels) -> float:
    """Matthews' correlation of any number of classes, 0 where one side knows a single class; arguments as `accuracy`.

    (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2)), with s examples, c of them right, p_k
    predicted as k and t_k of class k

    Source: Gorodkin, Computational Biology and Chemistry 28 (2004) 367.
    """
    _check(predicted, true)
    if len(np.union1d(predicted, true)) == 1:
        return 0.0  # scikit-learn warns of a single class
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(true, predicted))


def pearson(one: ArrayLike, other: ArrayLike) -> float:
    """Pearson's correlation, 0 where one side is constant: whoever says the same of everything follows nothing.

    Args:
        one: (examples,) numbers.
        other: (examples,) numbers.

    Raises:
        ValueError: fewer than two examples, not equally many, or a number that is not finite.
    """
    from scipy import stats

    x, y = _sides(one, other)
    return 0.0 if _constant(x, y) else float(stats.pearsonr(x, y).statistic)


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Pearson's correlation of the ranks, equal numbers sharing the mean of theirs; arguments as `pearson`."""
    from scipy import stats

    x, y = _sides(one, other)
    return 0.0 if _constant(x, y) else float(stats.spearmanr(x, y).statistic)


def _constant(x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
    return bool(np.ptp(x) == 0 or np.ptp(y) == 0)


def _check(predicted: Labels, true: Labels) -> None:
    if predicted.shape != true.shape or true.ndim != 1 or not len(true):
        raise ValueError(
            f"predicted has shape {predicted.shape}, true {true.shape}; give one label per example, and one at least"
        )


def _sides(one: ArrayLike, other: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (np.asarray(side, dtype=np.float64) for side in (one, other))
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"the sides have shapes {x.shape} and {y.shape}; give two as long, of at least 2 numbers")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("a number is NaN or infinite; correlations need finite ones")
    return x, y
