"""Calibration: the few sequences or images by which one-shot methods judge a model, and the loss that they give.

What a method saw decides what it cuts, so the data names its source, its length and its seed, and every method of a
comparison gets the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ecospa import ConfigError

SEQUENCES = 128
"""Sequences or images that the methods are given by default, as in SparseGPT's and Wanda's own experiments."""

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Batches of model inputs, with labels where a loss is wanted.

    Attributes:
        batches: what `model(**batch)` takes; "labels" are token numbers for a language model, classes for images.
        source: where the data comes from, for the record.
        seed: by which it was drawn.
    """

    batches: tuple[Batch, ...]
    source: str = "unknown"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batches:
            raise ConfigError("calibration is empty; give at least one batch, 128 sequences are usual")

    @property
    def sequences(self) -> int:
        """Number of sequences or images."""
        return sum(len(first_input(batch)) for batch in self.batches)

    @property
    def sequence_length(self) -> int | None:
        """Tokens per sequence; None for images."""
        tokens = self.batches[0].get("input_ids")
        return None if tokens is None else int(tokens.shape[1])

    @property
    def first(self) -> Batch:
        """The first sequence or image, as a batch of one."""
        return {name: value[:1] for name, value in self.batches[0].items()}


def as_calibration(data: Any) -> Calibration:
    """Calibration from what a caller has: one already, or any iterable of batches.

    Raises:
        ConfigError: there is no data, or a batch is no mapping of tensors.
    """
    if isinstance(data, Calibration):
        return data
    if data is None:
        raise ConfigError("calibration is None; this method needs data: give 128 sequences of the training data")
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise ConfigError(f"calibration is a {type(data).__name__}; it must be a list of batches")
    batches = tuple(data)
    for batch in batches:
        if not isinstance(batch, Mapping) or not all(isinstance(value, Tensor) for value in batch.values()):
            raise ConfigError(f"calibration holds a {type(batch).__name__}; a batch maps input names to tensors")
    return Calibration(batches)


def first_input(batch: Batch) -> Tensor:
    """The tokens or images of a batch."""
    return next(value for name, value in batch.items() if name != "labels")


def outputs(model: nn.Module, batch: Batch) -> Tensor:
    """Logits of a batch, whatever the model wraps them in; labels are not given to the model.

    Of the two heads that a distilled DeiT has while it trains, the mean, which it gives in evaluation.
    """
    result = model(**{name: value for name, value in batch.items() if name != "labels"})
    if isinstance(result, tuple):
        heads: Tensor = torch.stack(result).mean(0)
        return heads
    return result if isinstance(result, Tensor) else result.logits


def batch_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross entropy of a batch: the model's own loss where it has one, of its classes for a timm model.

    Raises:
        ConfigError: the batch has no labels.
    """
    if "labels" not in batch:
        raise ConfigError("calibration has no 'labels'; this method needs a loss: give labels with every batch")
    if hasattr(model, "config"):
        loss: Tensor = model(**batch).loss
        return loss
    return nn.functional.cross_entropy(outputs(model, batch), batch["labels"])


def accumulate_gradients(model: nn.Module, calibration: Calibration) -> None:
    """Leave the mean gradient over all batches in `.grad`; in evaluation mode, so that nothing is random."""
    was_training = model.training
    model.eval()
    model.zero_grad(set_to_none=True)
    for batch in calibration.batches:
        (batch_loss(model, batch) / len(calibration.batches)).backward()
    model.train(was_training)


@torch.no_grad()
def output_error(model: nn.Module, reference: nn.Module, calibration: Calibration) -> float:
    """Mean squared difference of the logits of two models over the calibration data."""
    total, count = 0.0, 0
    for batch in calibration.batches:
        difference = (outputs(model, batch) - outputs(reference, batch)).double()
        total, count = total + float(difference.square().sum()), count + difference.numel()
    return total / count
