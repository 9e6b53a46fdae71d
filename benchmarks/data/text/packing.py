"""From documents to token arrays: full sequences for training, windows that score every token once for evaluation.

No token is padded away or scored twice, so perplexities do not depend on how documents happen to be cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = -100  # the label that cross entropy leaves out


def pack(documents: Iterable[Sequence[int]], end_of_text: int) -> NDArray[np.int64]:
    """All documents in one stream, END_OF_TEXT before the first, between any two, and after the last.

    Returns:
        int64 (tokens,): every token but the first is one to predict.
    """
    parts = [np.array([end_of_text], dtype=np.int64)]
    for document in documents:
        parts.append(np.asarray(document, dtype=np.int64))
        parts.append(np.array([end_of_text], dtype=np.int64))
    return np.concatenate(parts)


def training_sequences(stream: NDArray[np.integer[Any]], length: int) -> NDArray[np.integer[Any]]:
    """Full sequences one after the other; what is left over at the end is dropped.

    Returns:
        (sequences, length), a view of the stream.

    Raises:
        ValueError: the stream is shorter than one sequence.
    """
    count = len(stream) // length
    if count == 0:
        raise ValueError(f"the text has {len(stream)} tokens; one sequence needs {length}: take more text")
    return stream[: count * length].reshape(count, length)


def evaluation_windows(
    stream: NDArray[np.int64], length: int, stride: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows that together score every token but the first of the stream exactly once.

    A window starts `stride` after the one before it; tokens already scored there are context only.

    Args:
        stream: (tokens,) of `pack`.
        length: tokens per window.
        stride: distance of two windows, in 1 .. length - 1.

    Returns:
        inputs and labels, int64 (windows, length); labels are IGNORED where a token is context or padding. A label at
        position t belongs to the input at t: the model shifts them itself.

    Raises:
        ValueError: the stride is outside its range.
    """
    if not 0 < stride < length:
        raise ValueError(f"stride is {stride}; it must be in 1 .. {length - 1}, or tokens would go unscored")
    starts = range(0, max(len(stream) - 1, 1), stride)
    inputs, labels = [], []
    scored = 1  # the first token has nothing before it
    for start in starts:
        window = stream[start : start + length]
        label = window.copy()
        label[: max(scored - start, 1)] = IGNORED
        scored = max(scored, start + len(window))
        missing = length - len(window)
        inputs.append(np.pad(window, (0, missing)))
        labels.append(np.pad(label, (0, missing), constant_values=IGNORED))
        if scored == len(stream):
            break
    return np.stack(inputs), np.stack(labels)
