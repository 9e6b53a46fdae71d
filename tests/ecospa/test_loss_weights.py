"""Whatever a loss divides by: parts add up to the batch, in loss and gradient, or are refused with the reason."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from ecospa import ConfigError, EcoSpaConfig, EcoSpaTrainer, MemoryBudget
from tests.ecospa.loss_heads import (
    BEYOND,
    CLASSES,
    EXAMPLES,
    GENERATOR,
    HEADS,
    IDS,
    PADDED,
    POSITIONS,
    WORDS,
    Head,
    Own,
    check,
    contrastive,
    cross_entropy,
    of,
    text,
    whole_and_parts,
)


@pytest.mark.parametrize("micro_batch", [1, 3])
@pytest.mark.parametrize("head", HEADS)
def test_parts_add_up_in_a_loop_of_ones_own(head: str, micro_batch: int) -> None:
    model = HEADS[head].build().train()
    random, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    check(*whole_and_parts(model, HEADS[head].batch, micro_batch))
    assert torch.equal(random, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """The examples of a batch, several times over."""

    def __init__(self, batch: dict[str, Tensor], copies: int) -> None:
        self.batch, self.copies = batch, copies

    def __len__(self) -> int:
        return EXAMPLES * self.copies

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: value[index % EXAMPLES] for name, value in self.batch.items()}


def train(
    folder: Path,
    model: nn.Module,
    batch: dict[str, Tensor],
    micro_batch: int | None,
    trainer: Any = EcoSpaTrainer,
    **options: Any,
) -> tuple[float, Tensor]:
    """Logged loss and gradient of one step of the Trainer."""
    extra = {name: options.pop(name) for name in ("compute_loss_func",) if name in options}
    accumulation = options.get("gradient_accumulation_steps", 1)
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=1, per_device_train_batch_size=EXAMPLES, max_grad_norm=0, logging_steps=1,
        optim="sgd", learning_rate=1.0, lr_scheduler_type="constant", use_cpu=True, save_strategy="no",
        report_to="none", disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=False, **options,
    )  # fmt: skip
    before = {name: value.detach().double().clone() for name, value in model.named_parameters()}
    limit = None
    if micro_batch is not None:
        limit = lambda own, optimizer: MemoryBudget(1, own, optimizer, micro_batch=micro_batch)  # noqa: E731
    run = trainer(
        model, arguments, train_dataset=Rows(batch, accumulation), memory_budget=limit,
        ecospa_config=EcoSpaConfig(target_size=0.95, target_scope="blocks", width_multiple=1, start_step=100), **extra,
    )  # fmt: skip
    run.train()
    moved = [before[name] - value.detach().double() for name, value in model.named_parameters()]
    return run.state.log_history[0]["loss"], torch.cat([value.flatten() for value in moved])


TRAINED = (
    "bert-mlm", "bert-classes", "bert-tokens", "bert-answers", "roberta-mlm", "gpt2-lm", "gpt2-double", "gpt2-classes",
    "llama-lm", "llama-some-classes", "llama-tokens", "qwen2-classes", "vit",
)  # fmt: skip


def compare(folder: Path, head: str, trainer: Any = EcoSpaTrainer, rel: float = 2e-5, **options: Any) -> None:
    whole, parts = (
        train(folder, HEADS[head].build(), HEADS[head].batch, micro_batch, trainer, **options)
        for micro_batch in (None, 3)
    )
    assert parts[0] == pytest.approx(whole[0], rel=max(rel, 1e-4))  # the log is rounded
    assert float((parts[1] - whole[1]).norm() / whole[1].norm()) < rel


@pytest.mark.parametrize("head", TRAINED)
def test_parts_add_up_in_the_trainer(head: str, tmp_path: Path) -> None:
    compare(tmp_path, head)


def own_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


def own_mean(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return cross_entropy(outputs.logits, labels)


class OwnTrainer(EcoSpaTrainer):
    """A subclass with a loss of its own that never asks ours."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs)
        loss = 2 * outputs.loss
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("bert-mlm", {"gradient_accumulation_steps": 2}),
        ("llama-lm", {"gradient_accumulation_steps": 2}),
        ("bert-mlm", {"label_smoothing_factor": 0.1}),
        ("llama-lm", {"label_smoothing_factor": 0.1}),
        ("bert-tokens", {"label_smoothing_factor": 0.1}),
        ("bert-mlm", {"compute_loss_func": own_loss}),
        ("bert-mlm", {"compute_loss_func": own_mean}),
        ("llama-lm", {"compute_loss_func": own_mean, "gradient_accumulation_steps": 2}),
        ("bert-mlm", {"trainer": OwnTrainer}),
        ("llama-lm", {"trainer": OwnTrainer}),
        ("llama-lm", {"average_tokens_across_devices": False}),
        ("bert-answers", {"label_names": ["start_positions", "end_positions"]}),
        ("bert-mlm", {"bf16": True, "rel": 2e-2}),
        ("llama-lm", {"bf16": True, "rel": 2e-2}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(str(key) for key in value),
)  # fmt: skip
def test_parts_add_up_whatever_computes_the_loss(head: str, options: dict[str, Any], tmp_path: Path) -> None:
    compare(tmp_path, head, **options)


class Normed(nn.Module):
    """A model with statistics over its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        return SimpleNamespace(loss=cross_entropy(self.head(self.norm(x)), labels))


WEIGHTS = torch.tensor([1.0, 5.0, 0.5] + [1.0] * (WORDS - 3))
REFUSED: dict[str, tuple[Head, str]] = {
    "contrastive": (Head(lambda: Own(contrastive), text()), "depends on which examples go together"),
    "class-weights": (
        Head(lambda: Own(lambda logits, batch: cross_entropy(logits[:, 0], batch["labels"], weight=WEIGHTS)),
             text(labels=CLASSES)),
        "weights of classes",
    ),
    "two-means": (
        Head(lambda: of("BertForPreTraining"), text(labels=PADDED, next_sentence_label=CLASSES % 2)),
        "means over several kinds of labels",
    ),
    "answers-beyond-apart": (
        Head(
            lambda: of("BertForQuestionAnswering", num_labels=2),
            text(**(POSITIONS | {"end_positions": BEYOND["end_positions"]})),
        ),
        "means over several kinds of labels",
    ),
    "other-padding": (
        Head(lambda: Own(lambda logits, batch: cross_entropy(logits, batch["labels"], ignore_index=0)),
             text(labels=PADDED.clamp_min(0))),
        "parts do not add up",
    ),
    "batch-norm": (
        Head(Normed, {"x": torch.randn(EXAMPLES, 4, generator=GENERATOR), "labels": CLASSES}),
        "norm is a BatchNorm1d",
    ),
    "not-a-number": (
        Head(lambda: Own(lambda logits, batch: SimpleNamespace(loss=logits.square().mean((1, 2)))), text()),
        "gives no loss",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_losses_that_no_weights_make_whole_are_refused(what: str) -> None:
    head, message = REFUSED[what]
    model = head.build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    budget = MemoryBudget(1, model, torch.optim.SGD(model.parameters()), micro_batch=3)
    with pytest.raises(ConfigError, match=message):
        next(budget.split(head.batch))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    whole = MemoryBudget(1, model, torch.optim.SGD(model.parameters()), micro_batch=EXAMPLES)
    assert [share for _, share in whole.split(head.batch)] == [1.0]  # one part is the batch itself


def test_the_trainer_refuses_at_its_first_step(tmp_path: Path) -> None:
    def contrast(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return contrastive(outputs.logits, {}).loss

    with pytest.raises(ConfigError, match="depends on which examples go together"):
        train(tmp_path, of("BertForMaskedLM"), text(labels=IDS), 3, compute_loss_func=contrast)


def test_parts_without_a_label_that_counts_are_left_out() -> None:
    labels = PADDED.clone()
    labels[3:6] = -100
    model = of("LlamaForCausalLM")
    check(*whole_and_parts(model, text(labels=labels), 3))
    budget = MemoryBudget(1, model, torch.optim.SGD(model.parameters()), micro_batch=3)
    assert [len(part["labels"]) for part, _ in budget.split(text(labels=labels))] == [3, 1]
    none = list(budget.split(text(labels=torch.full_like(labels, -100))))  # 0 / 0, as the whole batch is
    assert len(none) == 3 and sum(share for _, share in none) == pytest.approx(1)


def test_the_first_batch_need_not_tell_everything() -> None:
    """Without padding all means are the same; with it the model is asked again, and only then."""
    asked = 0

    def loss(model: nn.Module, part: Any) -> Tensor:
        nonlocal asked
        asked += 1
        return model(**part).loss

    model = of("BertForMaskedLM")
    budget = MemoryBudget(1, model, torch.optim.SGD(model.parameters()), micro_batch=3, loss=loss)
    calls = []
    for labels in (IDS, IDS, PADDED, PADDED, IDS):
        shares = [share for _, share in budget.split(text(labels=labels))]
        calls.append(asked)
        counts = [int((part != -100).sum()) for part in labels.split(3)]
        assert shares == pytest.approx([count / sum(counts) for count in counts])
    assert 0 < calls[0] == calls[1] < calls[2] == calls[3] == calls[4]


def test_equal_losses_leave_the_choice_to_what_is_known() -> None:
    """A head of zeros has the same loss for every label, which tells nothing about how they are weighed."""
    for name in ("LlamaForCausalLM", "BertForMaskedLM"):
        model = of(name, tie_word_embeddings=False)
        with torch.no_grad():
            for parameter in model.get_output_embeddings().parameters():
                parameter.zero_()
        check(*whole_and_parts(model, text(labels=PADDED), 3))


@pytest.mark.parametrize("counted", ["labels", lambda part: (part["labels"] != -100).sum()], ids=["name", "function"])
def test_what_counts_can_be_given(counted: Any) -> None:
    check(*whole_and_parts(of("BertForMaskedLM"), text(labels=PADDED), 3, counted=counted))
    model = of("BertForMaskedLM")
    budget = MemoryBudget(1, model, torch.optim.SGD(model.parameters()), micro_batch=3, counted="missing")
    with pytest.raises(ConfigError, match="counted is 'missing', which the batch lacks; it has input_ids, labels"):
        next(budget.split(text(labels=PADDED)))
