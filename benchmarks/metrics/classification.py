"""Metrics of classification as GLUE defines them: accuracy, F1 of class 1, and Matthews' correlation.

Matthews' correlation is 0 for whoever says the same of everything, and for chance; accuracy and F1 are not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

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
    return float((predicted == true).mean())


def f1(predicted: Labels, true: Labels) -> float:
    """F1 of class 1: 2 tp / (2 tp + fp + fn), 0 where that class is neither there nor predicted; as `accuracy`."""
    _check(predicted, true)
    hits = int(((predicted == 1) & (true == 1)).sum())
    named = int((predicted == 1).sum()) + int((true == 1).sum())
    return 2 * hits / named if named else 0.0


def matthews(predicted: Labels, true: Labels) -> float:
    """Matthews' correlation of any number of classes, 0 where one side knows a single class; arguments as `accuracy`.

    (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2)), with s examples, c of them right, p_k
    predicted as k and t_k of class k

    Source: Gorodkin, Computational Biology and Chemistry 28 (2004) 367.
    """
    _check(predicted, true)
    count, right = len(true), int((predicted == true).sum())
    classes = np.union1d(predicted, true)
    said = [int((predicted == number).sum()) for number in classes]
    are = [int((true == number).sum()) for number in classes]
    spread = (count**2 - sum(n**2 for n in said)) * (count**2 - sum(n**2 for n in are))
    covariance = right * count - sum(p * t for p, t in zip(said, are, strict=True))
    return covariance / math.sqrt(spread) if spread else 0.0


def _check(predicted: Labels, true: Labels) -> None:
    if predicted.shape != true.shape or true.ndim != 1 or not len(true):
        raise ValueError(
            f"predicted has shape {predicted.shape}, true {true.shape}; give one label per example, and one at least"
        )
