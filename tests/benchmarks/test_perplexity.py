"""Perplexity per token, per word and bits per byte against numbers worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.data.text.packing import evaluation_windows
from benchmarks.metrics.perplexity import Prediction, perplexity_metrics, predict


class Fixed(nn.Module):
    """Gives every next token the same probabilities: 1/2, 1/4, 1/8, 1/8."""

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
        return SimpleNamespace(logits=logits.expand(*input_ids.shape, 4))


def test_the_loss_is_the_sum_over_the_scored_tokens() -> None:
    stream = np.array([3, 0, 1, 2, 0, 3, 1])  # scored: 0 1 2 0 3 1 = 1 + 2 + 3 + 1 + 3 + 2 = 12 bits
    for length, stride, batch in ((4, 3, 1), (3, 1, 2), (16, 15, 8)):
        found = predict(Fixed(), *evaluation_windows(stream, length, stride), batch_size=batch)
        assert found.tokens == 6
        assert found.loss == pytest.approx(12 * math.log(2), rel=1e-6)


def test_the_metrics_by_hand() -> None:
    """12 bits over 6 tokens, 2 words and 8 bytes: 2 bits, 6 bits and 1.5 bits each."""
    found = perplexity_metrics(Prediction(12 * math.log(2), 6), words=2, size=8)
    assert found["perplexity"].value == pytest.approx(4.0)
    assert found["word_perplexity"].value == pytest.approx(64.0)
    assert found["bits_per_byte"].value == pytest.approx(1.5)
    assert found["eval_loss"].value == pytest.approx(2 * math.log(2))
    assert not any(metric.higher_is_better for metric in found.values())


def test_an_empty_text_is_refused_and_a_diverged_model_has_a_number() -> None:
    with pytest.raises(ValueError, match="0 words"):
        perplexity_metrics(Prediction(1.0, 1), words=0, size=1)
    assert math.isfinite(perplexity_metrics(Prediction(1e6, 2), words=1, size=8)["word_perplexity"].value)


def test_the_mode_of_the_model_is_put_back() -> None:
    model = Fixed().train()
    predict(model, *evaluation_windows(np.array([1, 2, 3]), 3, 2), batch_size=1)
    assert model.training
