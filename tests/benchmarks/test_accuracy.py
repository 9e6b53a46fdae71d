"""Accuracy against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.metrics.accuracy import accuracy_metrics, classify

LOGITS = np.random.default_rng(3).normal(size=(23, 9))
LABELS = np.random.default_rng(4).integers(0, 9, 23)


class Table(nn.Module):
    """Looks the logits up by the image's only pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return torch.from_numpy(LOGITS)[x.flatten().long()]


def examples(count: int = 23) -> list[dict[str, torch.Tensor]]:
    return [{"x": torch.full((1, 1, 1), n), "labels": torch.tensor(int(LABELS[n]))} for n in range(count)]


@pytest.mark.parametrize("batch_size", [4, 23, 100])
def test_shares_and_loss_are_those_of_a_count_by_hand(batch_size: int) -> None:
    model = Table().train()
    found = accuracy_metrics(classify(model, examples(), batch_size))  # type: ignore[arg-type]
    order = np.argsort(-LOGITS, axis=1)
    ranks = [order[n].tolist().index(LABELS[n]) for n in range(23)]
    assert found["top1"].value == sum(rank == 0 for rank in ranks) / 23
    assert found["top5"].value == sum(rank < 5 for rank in ranks) / 23
    losses = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(LOGITS, LABELS, strict=True)]
    assert found["eval_loss"].value == pytest.approx(np.mean(losses), rel=1e-6)
    assert {metric.n for metric in found.values()} == {23} and model.training


def test_fewer_than_five_classes_are_all_among_the_first_five() -> None:
    class Few(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(x), 3)

    found = classify(Few(), [{"x": torch.zeros(1), "labels": torch.tensor(2)}], 1)  # type: ignore[arg-type]
    assert (found.among_five, found.images) == (1, 1)


def test_nothing_to_evaluate_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 images"):
        classify(Table(), [], 4)  # type: ignore[arg-type]
