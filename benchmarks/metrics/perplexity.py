"""Perplexity of a language model on held-out text: per token, per word and per byte.

Only the last two compare across vocabularies. The loss of the END_OF_TEXT marks is part of the sum, their bytes and
words are not, so both are slightly too high rather than too low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from benchmarks.data.text.packing import IGNORED
from results.record import Metric

_OVERFLOW = 700.0  # exp() of more is no longer a float; a diverged model still deserves a number


@dataclass(frozen=True)
class Prediction:
    """Sum of the negative log-likelihoods of the scored tokens, in nats, and how many they are."""

    loss: float
    tokens: int


@dataclass(frozen=True)
class HeldOut:
    """Text to evaluate on, as windows (int64, (windows, length)), and its counts and fingerprint."""

    inputs: NDArray[np.int64]
    labels: NDArray[np.int64]
    words: int
    size: int
    fingerprint: str

    def predict(self, model: nn.Module) -> Prediction:
        """Losses of a model on all of it."""
        return predict(model, self.inputs, self.labels, batch_size=16)

    def metrics(self, prediction: Prediction) -> dict[str, Metric]:
        """The usual numbers of a prediction."""
        return perplexity_metrics(prediction, self.words, self.size)

    def perplexity(self, model: nn.Module) -> float:
        """Perplexity per token."""
        return self.metrics(self.predict(model))["perplexity"].value


@torch.no_grad()
def predict(
    model: nn.Module, inputs: NDArray[Any], labels: NDArray[Any], batch_size: int, device: str = "cpu"
) -> Prediction:
    """Negative log-likelihood of all labelled tokens.

    Args:
        model: causal language model; its mode is put back afterwards.
        inputs: int64 (windows, length).
        labels: int64 (windows, length), IGNORED where nothing is scored.
        batch_size: windows at a time.
        device: where the model is.

    Returns:
        Sum in nats, accumulated in float64, and number of tokens.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(inputs), batch_size):
        tokens = torch.from_numpy(inputs[start : start + batch_size]).to(device)
        wanted = torch.from_numpy(labels[start : start + batch_size]).to(device)[:, 1:]
        logits = model(input_ids=tokens).logits[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none")
        total += float(loss.double().sum())
        count += int((wanted != IGNORED).sum())
    model.train(was_training)
    return Prediction(total, count)


def perplexity_metrics(prediction: Prediction, words: int, size: int) -> dict[str, Metric]:
    """The usual numbers from one evaluation.

    perplexity = exp(loss / tokens), word_perplexity = exp(loss / words), bits_per_byte = loss / (ln 2 * bytes)

    Args:
        prediction: sum of losses in nats, and tokens.
        words: whitespace-separated words of the text.
        size: UTF-8 bytes of the text.

    Raises:
        ValueError: there is nothing to divide by.
    """
    if min(prediction.tokens, words, size) < 1:
        counted = f"{prediction.tokens} tokens, {words} words, {size} bytes"
        raise ValueError(f"the evaluation text has {counted}; it must have at least one of each")
    return {
        "eval_loss": Metric(prediction.loss / prediction.tokens, "nats per token", False),
        "perplexity": Metric(_exp(prediction.loss / prediction.tokens), "per token", False),
        "word_perplexity": Metric(_exp(prediction.loss / words), "per word", False),
        "bits_per_byte": Metric(prediction.loss / (math.log(2) * size), "bits per byte", False),
    }


def _exp(value: float) -> float:
    return math.exp(min(value, _OVERFLOW)) if not math.isnan(value) else value
