"""A budget is kept from the first step to the last, whatever the model's size, and training does not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, TrainingArguments, set_seed

import ecospa
from benchmarks.metrics.allocation import allocated
from ecospa import ConfigError, EcoSpaConfig, EcoSpaTrainer, MemoryBudget

BATCH, LENGTH, STEPS = 16, 48, 12
CONFIG = EcoSpaConfig(
    target_size=0.3, target_scope="blocks", pace="curve", start_step=2, end_step=8, interval=2, width_multiple=4
)


def model_of(kind: str) -> Any:
    set_seed(0)
    if kind == "gpt2":
        shape = GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=128, n_positions=LENGTH, resid_pdrop=0.0,
                           embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)  # fmt: skip
        return GPT2LMHeadModel(shape)
    return LlamaForCausalLM(LlamaConfig(hidden_size=64, intermediate_size=176, num_hidden_layers=2, vocab_size=128,
                                        num_attention_heads=4, num_key_value_heads=2))  # fmt: skip


def batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 128, (STEPS, BATCH, LENGTH), generator=generator)
    return [{"input_ids": batch, "labels": batch} for batch in tokens]


def held(model: Any, optimizer: Any) -> int:
    """Bytes of weights, buffers and optimizer state."""
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [value for state in optimizer.state.values() for value in state.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def train(kind: str, limit: int | None) -> tuple[list[float], list[int], list[int]]:
    """Losses, highest number of bytes, and examples per pass of every step."""
    model = model_of(kind).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    sparsity = ecospa.CoupledSparsity(model, optimizer, CONFIG)
    budget = None if limit is None else MemoryBudget(limit, model, optimizer)
    losses, peaks, parts = [], [], []

    def step() -> float:
        total = 0.0
        for part, share in [(batch, 1.0)] if budget is None else budget.split(batch):
            loss = model(**part).loss * share
            loss.backward()
            total += float(loss.detach())
        sparsity.after_backward()
        optimizer.step()
        optimizer.zero_grad()
        return total

    for batch in batches():
        if budget is not None:
            next(budget.split(batch))  # traces, which must not be measured
        before = held(model, optimizer)
        loss, peak = allocated(step)
        losses.append(loss)
        peaks.append(before + peak)
        parts.append(BATCH if budget is None or budget.micro_batch is None else budget.micro_batch)
        sparsity.after_step()
    return losses, peaks, parts


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_seventy_percent_of_the_dense_peak_is_never_passed(kind: str) -> None:
    losses, dense_peaks, _ = train(kind, None)
    limit = int(0.7 * max(dense_peaks))
    kept, peaks, parts = train(kind, limit)
    assert max(peaks) <= limit
    assert max(peaks) > 0.5 * limit  # not by staying far below it
    assert kept == pytest.approx(losses, rel=1e-4)
    assert parts[0] < BATCH and parts == sorted(parts) and parts[-1] > parts[0]


def trainer_losses(folder: Path, limit: int | None) -> tuple[list[float], EcoSpaTrainer]:
    examples = [{"input_ids": row, "labels": row} for batch in batches() for row in batch["input_ids"]]
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=2e-3, logging_steps=1,
        use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = EcoSpaTrainer(
        model_of("gpt2"), arguments, ecospa_config=CONFIG, memory_budget=limit, train_dataset=examples
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], trainer


def test_the_trainer_keeps_a_budget_and_its_losses(tmp_path: Path) -> None:
    plain, trainer = trainer_losses(tmp_path / "plain", None)
    assert trainer.budget is None
    model, batch = model_of("gpt2"), batches()[0]
    whole = MemoryBudget(10**12, model, torch.optim.AdamW(model.parameters())).peak(batch, BATCH)
    kept, trainer = trainer_losses(tmp_path / "kept", int(0.6 * whole))
    assert trainer.budget is not None and trainer.budget.micro_batch is not None
    assert kept == pytest.approx(plain, rel=1e-4)
    assert trainer.ecospa.sparsity is not None and trainer.ecospa.sparsity.finished


def test_parts_are_the_batch_in_its_order_and_their_shares_are_one() -> None:
    model = model_of("gpt2")
    optimizer = torch.optim.AdamW(model.parameters())
    batch = batches()[0]
    generous = MemoryBudget(10**12, model, optimizer)
    assert [len(part["labels"]) for part, _ in generous.split(batch)] == [BATCH]
    tight = MemoryBudget(generous.peak(batch, 5), model, optimizer)
    parts = list(tight.split(batch))
    assert tight.micro_batch == 5 and [len(part["labels"]) for part, _ in parts] == [5, 5, 5, 1]
    assert torch.equal(torch.cat([part["labels"] for part, _ in parts]), batch["labels"])
    assert sum(share for _, share in parts) == pytest.approx(1)


@pytest.mark.parametrize(
    ("optimizer", "moments"),
    [
        (lambda parameters: torch.optim.SGD(parameters, lr=0.1), 0),
        (lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9), 1),
        (lambda parameters: torch.optim.AdamW(parameters, lr=0.1), 2),
        (lambda parameters: torch.optim.Adam(parameters, lr=0.1, amsgrad=True), 3),
    ],
)
def test_state_that_is_still_to_come_is_foretold(optimizer: Any, moments: int) -> None:
    model, batch = model_of("gpt2"), batches()[0]
    own = optimizer(model.parameters())
    budget = MemoryBudget(10**12, model, own)
    before = budget._fixed() + budget._trained()
    model(**batch).loss.backward()
    own.step()
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert before == (2 + moments) * size
    assert budget._fixed() + budget._trained() == pytest.approx(before, rel=1e-3)  # the counters of steps are real, too


def test_a_budget_that_cannot_be_kept_is_refused() -> None:
    model, batch = model_of("gpt2"), batches()[0]
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(ConfigError, match=r"memory_budget is 1000 bytes; this model needs [0-9]+ with one example"):
        next(MemoryBudget(1000, model, optimizer).split(batch))
    with pytest.raises(ConfigError, match="memory_budget is 0; it must be a whole number of bytes"):
        MemoryBudget(0, model, optimizer)


def test_a_limit_of_the_trainer_is_checked_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory_budget is -5; it must be a whole number of bytes"):
        trainer_losses(tmp_path, -5)


def test_several_optimizers_and_compiled_models_are_foretold_as_one_and_plain() -> None:
    model, batch = model_of("gpt2"), batches()[0]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    one = MemoryBudget(10**12, model, torch.optim.AdamW(model.parameters()))
    several = [torch.optim.AdamW(matrices), torch.optim.AdamW(others)]
    two = MemoryBudget(10**12, torch.compile(model), several)
    assert one.peak(batch, 4) == two.peak(batch, 4)
    mixed = MemoryBudget(10**12, model, [torch.optim.SGD(matrices, momentum=0.9), several[1]])
    size = 4 * sum(parameter.numel() for parameter in matrices)
    assert two.peak(batch, BATCH) - mixed.peak(batch, BATCH) == size  # one moment instead of two
    for optimizer in several:
        optimizer.step()  # no gradients: no state, which is predicted all the same
    assert two.peak(batch, 4) == one.peak(batch, 4)


def test_shapes_that_were_met_are_not_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of("gpt2"), batches()[0]
    short = {name: value[:, :20] for name, value in batch.items()}
    limit = MemoryBudget(10**12, model, torch.optim.AdamW(model.parameters())).peak(batch, 5)
    budget = MemoryBudget(limit, model, torch.optim.AdamW(model.parameters()))
    chosen = []
    for own in (batch, short):
        next(budget.split(own))
        chosen.append(budget.micro_batch)
    monkeypatch.setattr(budget, "_trace", None)
    for own, micro_batch in zip((batch, short, batch), (*chosen, chosen[0]), strict=True):
        next(budget.split(own))
        assert budget.micro_batch == micro_batch
