"""Accuracy of an image classifier on held-out images: top-1, and top-5 (the class is among the first five guesses)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from baselines.calibration import outputs
from results.record import Metric

_GUESSES = 5


@dataclass(frozen=True)
class Tally:
    """Images right at the first guess and among the first five, sum of the losses in nats, and how many they are."""

    first: int
    among_five: int
    loss: float
    images: int


@torch.no_grad()
def classify(model: nn.Module, examples: Dataset[Any], batch_size: int, device: str = "cpu") -> Tally:
    """Guesses for all examples.

    Args:
        model: classifier; its mode is put back afterwards.
        examples: each {"x": image, "labels": int64 ()}, unaugmented.
        batch_size: images at a time.
        device: where the model is.

    Raises:
        ValueError: there are no examples.
    """
    size: int = len(examples)  # type: ignore[arg-type]
    if size == 0:
        raise ValueError("there are 0 images to evaluate on; there must be at least one")
    was_training = model.training
    model.eval()
    first, among, loss = 0, 0, 0.0
    for start in range(0, size, batch_size):
        batch = default_collate([examples[number] for number in range(start, min(start + batch_size, size))])
        labels: Tensor = batch["labels"].to(device)
        logits = outputs(model, {"x": batch["x"].to(device)}).float()
        guesses = logits.topk(min(_GUESSES, logits.shape[1])).indices == labels[:, None]
        first += int(guesses[:, 0].sum())
        among += int(guesses.sum())
        loss += float(F.cross_entropy(logits, labels, reduction="none").double().sum())
    model.train(was_training)
    return Tally(first, among, loss, size)


def accuracy_metrics(tally: Tally) -> dict[str, Metric]:
    """top1 = right / images, top5 = right among five / images, eval_loss = loss / images."""
    count = tally.images
    return {
        "top1": Metric(tally.first / count, "share of images", True, n=count),
        "top5": Metric(tally.among_five / count, "share of images", True, n=count),
        "eval_loss": Metric(tally.loss / count, "nats per image", False, n=count),
    }
