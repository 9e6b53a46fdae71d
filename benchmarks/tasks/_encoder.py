"""Parts that all tasks of encoders share: examples as a data set, logits of held-out ones, and their record entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.data.text.encoded import Inputs
from benchmarks.specs.encoder import EncoderSpec


class EncodedExamples(Dataset[dict[str, Tensor]]):
    """Inputs of an encoder with their labels: whole numbers as int64, real ones as float32."""

    def __init__(self, inputs: Inputs, labels: NDArray[Any]) -> None:
        self.inputs = {name: torch.from_numpy(value.astype(np.int32)) for name, value in inputs.items()}
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {**{name: value[index].long() for name, value in self.inputs.items()}, "labels": self.labels[index]}


@torch.no_grad()
def predict(model: nn.Module, inputs: Inputs, batch_size: int, device: str) -> NDArray[np.float32]:
    """Logits of all examples, in their order; the model's mode is put back."""
    was_training = model.training
    model.eval()
    batches = []
    for start in range(0, len(inputs["input_ids"]), batch_size):
        part = {name: value[start : start + batch_size].astype(np.int64) for name, value in inputs.items()}
        logits = model(**{name: torch.from_numpy(value).to(device) for name, value in part.items()}).logits
        batches.append(logits.float().cpu())
    model.train(was_training)
    together: NDArray[np.float32] = torch.cat(batches).numpy()
    return together


def check_vocabulary(spec: EncoderSpec, vocabulary: int, tokenizer: str) -> None:
    """Refuse a model that cannot hold all tokens.

    Raises:
        ValueError: its vocabulary is too small.
    """
    if vocabulary > spec.vocabulary:
        raise ValueError(f"vocabulary is {spec.vocabulary}; {tokenizer} has {vocabulary} entries: give at least these")


def fingerprint(data: str, weights: str | None) -> str:
    """Of the data, and of the weights that a run starts from."""
    return data if weights is None else f"{data} {weights}"
