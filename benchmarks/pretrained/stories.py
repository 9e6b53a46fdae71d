"""Stories that a trained model is judged by, and those that it tells itself to be trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.data import source as sources
from benchmarks.data.text.packing import evaluation_windows, pack
from benchmarks.metrics.perplexity import HeldOut
from benchmarks.specs.language import DataSpec, ProtocolSpec

_SAMPLED_AT_ONCE = 128


def held_out_text(data: DataSpec, protocol: ProtocolSpec, tokenizer: Any, tier: str) -> HeldOut:
    """The stories to evaluate on, BOS before every one as in llama2.c.

    Raises:
        MissingSourceError: they are not at hand.
    """
    corpus = sources.find(data.source).load(data.configuration, protocol.split, tier, None)
    documents = tokenizer(list(corpus.evaluation), add_special_tokens=False)["input_ids"]
    stream = pack(documents, int(tokenizer.bos_token_id))
    inputs, labels = evaluation_windows(stream, protocol.sequence_length, protocol.stride)
    words = sum(len(text.split()) for text in corpus.evaluation)
    size = sum(len(text.encode()) for text in corpus.evaluation)
    return HeldOut(inputs, labels, words, size, corpus.fingerprint)


@torch.no_grad()
def sample_stories(model: Any, stories: int, length: int, begin: int) -> Tensor:
    """Stories that a model tells from nothing but BOS, int64 (stories, length), sampled at temperature 1."""
    model.eval()
    parts = []
    for start in range(0, stories, _SAMPLED_AT_ONCE):
        prompt = torch.full((min(_SAMPLED_AT_ONCE, stories - start), 1), begin)
        parts.append(
            model.generate(
                prompt, max_length=length, min_length=length, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                pad_token_id=begin, attention_mask=torch.ones_like(prompt),
            )
        )  # fmt: skip
    return torch.cat(parts)
