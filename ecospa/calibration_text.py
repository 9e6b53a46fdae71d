"""A text of the user's own as sequences of tokens: what importances are taken from, and quality is measured on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from ecospa.config import ConfigError
from ecospa.estimator import CoupledEstimator
from ecospa.families import coupled_pairs


def token_sequences(model: str, text: str, sequences: int, length: int, seed: int) -> Int64[Tensor, "sequences length"]:
    """Sequences from all over a text, in the order of a seed.

    Args:
        model: folder or id that has the tokenizer.
        text: UTF-8 file.
        sequences: how many at most.
        length: tokens of each.
        seed: of the choice.

    Returns:
        int64 (sequences, length).

    Raises:
        ConfigError: the file or the tokenizer cannot be read, or the text has no two sequences of this length.
    """
    from transformers import AutoTokenizer

    try:
        content = Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"calibration is {text!r}, which cannot be read ({error}); give a UTF-8 text file") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{model} has no tokenizer ({str(error).splitlines()[0]}); put its files into that folder"
        ) from error
    tokens = torch.tensor(tokenizer(content, verbose=False)["input_ids"], dtype=torch.int64)
    whole = len(tokens) // length
    if whole < 2:
        raise ConfigError(
            f"seq is {length}, and {text} has {len(tokens)} tokens; at least two sequences are needed, one to "
            "calibrate on and one to judge by: give a longer text or a smaller seq"
        )
    rows = tokens[: whole * length].view(whole, length)
    chosen = torch.randperm(whole, generator=torch.Generator().manual_seed(seed))[:sequences]
    return rows[chosen]


def importances(model: Any, batches: Iterable[Int64[Tensor, "batch length"]]) -> dict[str, float]:
    """Importance of every pair of a causal language model: empirical Fisher information over a text.

    Args:
        model: a causal language model; its gradients are cleared.
        batches: tokens.

    Source: paper, importance of a coupled pair.
    """
    estimator = CoupledEstimator(model, coupled_pairs(model))
    for tokens in batches:
        model.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        estimator.update()
    model.zero_grad()
    return dict(estimator.importances())


@torch.no_grad()
def perplexity(model: Any, batches: Iterable[Int64[Tensor, "batch length"]]) -> float:
    """Perplexity of a causal language model: exp of the mean loss over all predicted tokens.

    Args:
        model: a causal language model.
        batches: tokens.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for tokens in batches:
        predicted = tokens.shape[0] * (tokens.shape[1] - 1)
        total += float(model(input_ids=tokens, labels=tokens).loss) * predicted
        count += predicted
    model.train(was_training)
    return math.exp(total / count)
