"""Models with losses of every kind, and whether the parts of a batch add up to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from ecospa import MemoryBudget

EXAMPLES, LENGTH, WORDS = 7, 8, 31
GENERATOR = torch.Generator().manual_seed(3)
IDS = torch.randint(2, WORDS, (EXAMPLES, LENGTH), generator=GENERATOR)
PADDED = IDS.clone()
for row in range(EXAMPLES):
    PADDED[row, 2 + row :] = -100
PADDED[2, 0] = -100
CLASSES = torch.tensor([0, 1, 2, 0, 1, 1, 2])
SIZES = {
    "num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": WORDS,
    "max_position_embeddings": 24, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "num_labels": 3,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
DRY = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "summary_first_dropout": 0.0}


def of(name: str, **extra: Any) -> nn.Module:
    """A tiny model of transformers by the name of its class."""
    torch.manual_seed(0)
    family = next(family for family in ("Bert", "Roberta", "GPT2", "Llama", "Qwen2", "ViT") if name.startswith(family))
    sizes: dict[str, Any] = SIZES | (DRY if family == "GPT2" else {})
    if family == "ViT":
        sizes = {key: value for key, value in SIZES.items() if "token" not in key} | {"image_size": 4, "patch_size": 2}
    config = getattr(transformers, f"{family}Config")(**(sizes | extra))
    return getattr(transformers, name)(config)


class Own(nn.Module):
    """A model of the user's own: logits per token, and a loss that is given."""

    def __init__(self, loss: Callable[[Tensor, dict[str, Any]], Any], width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head, self.loss = nn.Embedding(WORDS, width), nn.Linear(width, WORDS), loss

    def forward(self, input_ids: Tensor, **rest: Any) -> Any:
        return self.loss(self.head(torch.tanh(self.embed(input_ids))), {"input_ids": input_ids} | rest)


def cross_entropy(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), **options)


def by_rows(logits: Tensor, batch: dict[str, Any]) -> Any:
    rows = [cross_entropy(*pair) for pair in zip(logits, batch["labels"], strict=True)]
    return SimpleNamespace(loss=torch.stack(rows).mean())


def by_mask(logits: Tensor, batch: dict[str, Any]) -> Any:
    losses = cross_entropy(logits, batch["input_ids"], reduction="none")
    mask = batch["attention_mask"].flatten()
    return SimpleNamespace(loss=(losses * mask).sum() / mask.sum())


def contrastive(logits: Tensor, batch: dict[str, Any]) -> Any:
    features = logits.mean(1)
    return SimpleNamespace(loss=cross_entropy(features @ features.T, torch.arange(len(features))))


@dataclass(frozen=True)
class Head:
    """A head: how to build it, and what it is called with beside tokens."""

    build: Callable[[], nn.Module]
    batch: dict[str, Any]


def text(**rest: Any) -> dict[str, Any]:
    return {"input_ids": IDS, **rest}


MASK = (PADDED != -100).long()
POSITIONS = {"start_positions": CLASSES, "end_positions": CLASSES + 2}
BEYOND = {"start_positions": torch.tensor([0, 9, 1, 9, 2, 3, 9]), "end_positions": torch.tensor([0, 9, 1, 9, 2, 3, 9])}
CHOICES = IDS[:, None].expand(-1, 2, -1) + torch.tensor([0, 1])[None, :, None] - 1
WORD_CLASSES = torch.where(PADDED == -100, -100, PADDED % 3)
IMAGES = torch.randn(EXAMPLES, 3, 4, 4, generator=GENERATOR)
HEADS = {
    "bert-mlm": Head(lambda: of("BertForMaskedLM"), text(labels=PADDED)),
    "bert-mlm-mask": Head(lambda: of("BertForMaskedLM"), text(labels=PADDED, attention_mask=MASK)),
    "bert-mlm-whole": Head(lambda: of("BertForMaskedLM"), text(labels=IDS)),
    "bert-classes": Head(lambda: of("BertForSequenceClassification"), text(labels=CLASSES)),
    "bert-regression": Head(lambda: of("BertForSequenceClassification", num_labels=1), text(labels=CLASSES / 3)),
    "bert-many": Head(lambda: of("BertForSequenceClassification"), text(labels=nn.functional.one_hot(CLASSES) * 1.0)),
    "bert-tokens": Head(lambda: of("BertForTokenClassification"), text(labels=WORD_CLASSES)),
    "bert-answers": Head(lambda: of("BertForQuestionAnswering", num_labels=2), text(**POSITIONS)),
    "bert-answers-beyond": Head(lambda: of("BertForQuestionAnswering", num_labels=2), text(**BEYOND)),
    "bert-choice": Head(lambda: of("BertForMultipleChoice"), {"input_ids": CHOICES, "labels": CLASSES % 2}),
    "bert-next": Head(lambda: of("BertForNextSentencePrediction"), text(labels=CLASSES % 2)),
    "bert-lm": Head(lambda: of("BertLMHeadModel", is_decoder=True), text(labels=PADDED)),
    "roberta-mlm": Head(lambda: of("RobertaForMaskedLM"), text(labels=PADDED)),
    "gpt2-lm": Head(lambda: of("GPT2LMHeadModel"), text(labels=PADDED)),
    "gpt2-double": Head(
        lambda: of("GPT2DoubleHeadsModel"),
        {"input_ids": CHOICES, "labels": PADDED[:, None].expand(-1, 2, -1), "mc_labels": CLASSES % 2,
         "mc_token_ids": torch.full((EXAMPLES, 2), LENGTH - 1)},
    ),
    "gpt2-classes": Head(lambda: of("GPT2ForSequenceClassification"), text(labels=CLASSES)),
    "gpt2-tokens": Head(lambda: of("GPT2ForTokenClassification", classifier_dropout=0.0), text(labels=WORD_CLASSES)),
    "llama-lm": Head(lambda: of("LlamaForCausalLM"), text(labels=PADDED)),
    "llama-shared-positions": Head(
        lambda: of("LlamaForCausalLM"), text(labels=PADDED, position_ids=torch.arange(LENGTH)[None])
    ),
    "llama-classes": Head(lambda: of("LlamaForSequenceClassification"), text(labels=CLASSES)),
    "llama-some-classes": Head(
        lambda: of("LlamaForSequenceClassification"), text(labels=torch.tensor([0, -100, 2, 1, -100, -100, 1]))
    ),
    "llama-tokens": Head(lambda: of("LlamaForTokenClassification", classifier_dropout=0.0), text(labels=WORD_CLASSES)),
    "llama-answers": Head(lambda: of("LlamaForQuestionAnswering"), text(**POSITIONS)),
    "qwen2-classes": Head(lambda: of("Qwen2ForSequenceClassification", num_key_value_heads=2), text(labels=CLASSES)),
    "vit": Head(lambda: of("ViTForImageClassification"), {"pixel_values": IMAGES, "labels": CLASSES}),
    "own-tuple": Head(lambda: Own(lambda logits, batch: (cross_entropy(logits, batch["labels"]), logits)),
                      text(labels=PADDED)),
    "own-number": Head(lambda: Own(lambda logits, batch: cross_entropy(logits, batch["targets"])),
                       text(targets=PADDED)),
    "own-name": Head(lambda: Own(lambda logits, batch: cross_entropy(logits, batch["y"])), text(y=PADDED)),
    "own-sum": Head(lambda: Own(lambda logits, batch: cross_entropy(logits, batch["labels"], reduction="sum")),
                    text(labels=PADDED)),
    "own-shift": Head(
        lambda: Own(lambda logits, batch: cross_entropy(logits[:, :-1], batch["labels"][:, 1:])), text(labels=PADDED)
    ),
    "own-rows": Head(lambda: Own(by_rows), text(labels=PADDED)),
    "own-mask": Head(lambda: Own(by_mask), text(attention_mask=MASK)),
    "own-nothing": Head(lambda: Own(lambda logits, batch: logits.square().mean()), text()),
}  # fmt: skip


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def loss_of(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    result = model(**batch)
    loss = result if isinstance(result, Tensor) else getattr(result, "loss", None)
    return result[0] if loss is None else loss


def whole_and_parts(model: nn.Module, batch: dict[str, Any], micro_batch: int, **options: Any) -> tuple[Any, Any]:
    """Loss and gradient of a batch, and of its parts in a loop of one's own."""
    budget = MemoryBudget(1, model, torch.optim.SGD(model.parameters()), micro_batch=micro_batch, **options)
    found = []
    for parts in ([(batch, 1.0)], budget.split(batch)):
        model.zero_grad()
        total = 0.0
        for part, share in parts:
            loss = loss_of(model, part) * share
            loss.backward()
            total += float(loss.detach())
        found.append((total, gradients(model)))
    return found[0], found[1]


def check(whole: Any, parts: Any) -> None:
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert float((parts[1] - whole[1]).norm() / whole[1].norm()) < 1e-5
