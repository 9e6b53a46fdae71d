"""BERT with a fresh head: from scratch, or on top of an encoder that others have trained.

Of given weights the encoder alone is taken, whatever head they carry: every task starts with a head of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification, BertModel, set_seed
from transformers.modeling_outputs import TokenClassifierOutput

from benchmarks.data.fingerprints import LOCAL, fingerprint
from benchmarks.data.sources import hub_weights, minilm
from benchmarks.specs.encoder import EncoderSpec

_POOLER = "pooler."  # a checkpoint of masked-language training lacks it; it is then as fresh as the head


class SpanReader(BertForQuestionAnswering):
    """Answers with a span; takes the two positions as one tensor of labels, as every other task of the suite does."""

    def forward(self, labels: Tensor | None = None, **inputs: Any) -> TokenClassifierOutput:
        """Logits (batch, length, 2) of the first and the last token of the answer; labels (batch, 2)."""
        outputs = super().forward(**inputs)
        logits = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1)
        loss = None if labels is None else span_loss(logits, labels)
        return TokenClassifierOutput(loss=loss, logits=logits)


def build_encoder(
    spec: EncoderSpec, outputs: int | None, seed: int, device: str = "cpu", folder: Path | None = None
) -> nn.Module:
    """An encoder with a fresh head: the same weights for the same seed, whatever method is to train it.

    Args:
        spec: sizes, and which weights to start from.
        outputs: numbers that the head gives per example, 1 for a real number; None for a span.
        seed: of every random generator, set here.
        device: where the model is put.
        folder: where weights lie that the spec names by their fingerprint.

    Raises:
        ValueError: the weights in the folder are not those of the spec, or lack a part of the encoder.
    """
    set_seed(seed)
    kind = SpanReader if outputs is None else BertForSequenceClassification
    model: Any = kind(_config(spec, 2 if outputs is None else outputs))
    if spec.weights is not None:
        _fill(model.bert, spec, folder)
    moved: nn.Module = model.to(torch.device(device))
    return moved


def span_loss(logits: Tensor, labels: Tensor, divisor: Any = None) -> Tensor:
    """Mean cross entropy of the first and the last token of the answers.

    Args:
        logits: (batch, length, 2).
        labels: (batch, 2), positions.
        divisor: labels of the whole step, where the batch is a part of it; those of the batch by default.
    """
    total = cross_entropy(logits.transpose(1, 2).flatten(0, 1), labels.flatten(), reduction="sum")
    return total / (labels.numel() if divisor is None else divisor)


def label_loss(logits: Tensor, labels: Tensor, divisor: Any = None) -> Tensor:
    """Mean cross entropy of classes, or mean squared error of real numbers.

    Args:
        logits: (batch, classes), or (batch, 1) for real numbers.
        labels: int (batch,), or float (batch,) for real numbers.
        divisor: as in `span_loss`.
    """
    if labels.is_floating_point():
        total = mse_loss(logits[:, 0].float(), labels, reduction="sum")
    else:
        total = cross_entropy(logits, labels, reduction="sum")
    return total / (labels.numel() if divisor is None else divisor)


def _config(spec: EncoderSpec, outputs: int) -> BertConfig:
    return BertConfig(
        vocab_size=spec.vocabulary,
        max_position_embeddings=spec.positions,
        hidden_size=spec.width,
        intermediate_size=4 * spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        hidden_dropout_prob=spec.dropout,
        attention_probs_dropout_prob=spec.dropout,
        num_labels=outputs,  # type: ignore[call-arg]  # of its base class, as is attn_implementation
        problem_type="regression" if outputs == 1 else "single_label_classification",
        attn_implementation="sdpa",
    )


def _published(weights: str) -> Path | str:
    """Folder with the weights of others, or their id on the Hub."""
    if weights == minilm.HUB_ID:
        return minilm.folder()
    return hub_weights.folder(weights) or weights


def _fill(encoder: nn.Module, spec: EncoderSpec, folder: Path | None) -> None:
    """Put trained weights into an encoder; what they lack of the pooler stays as fresh as the head."""
    if folder is None and str(spec.weights).startswith(LOCAL):
        raise ValueError(f"weights is {spec.weights}, which lies in no known folder; give it with --weights")
    if folder is not None and fingerprint(folder) != spec.weights:
        raise ValueError(f"weights is {spec.weights}, but {folder} holds {fingerprint(folder)}; give the right folder")
    place = folder or _published(str(spec.weights))
    loaded: Any = BertModel.from_pretrained(place, output_loading_info=True, dtype=torch.float32)
    trained, report = loaded
    missing = {str(name) for name in report["missing_keys"]}
    known = encoder.state_dict()
    absent = missing | (known.keys() - trained.state_dict().keys())  # a checkpoint of fewer layers lacks nothing itself
    wrong = sorted({name for name in absent if not name.startswith(_POOLER)} | set(map(str, report["mismatched_keys"])))
    if wrong:
        raise ValueError(f"{place} lacks {wrong[0]} of a BERT encoder, or has it in another shape; give other weights")
    weights = {name: value for name, value in trained.state_dict().items() if name in known and name not in missing}
    encoder.load_state_dict({**known, **weights})
