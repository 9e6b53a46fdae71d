"""Resources of tier paper are shown by a dry run, and the memory shown is the one that shapes predict."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks import registry
from benchmarks.execution import terminal
from benchmarks.execution.plan import make_plan
from benchmarks.experiment import MethodRef
from benchmarks.models.encoder import build_encoder
from benchmarks.models.language import build_model
from benchmarks.models.vision import build_classifier
from benchmarks.specs.training import TrainingSettings
from ecospa.memory_budget import MemoryBudget
from results.store import Store

PAPER = [name for name, experiment in registry.experiments().items() if "paper" in experiment.tiers]


class Classifier(nn.Module):
    """An image model with its loss."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixel_values: Tensor, labels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=nn.functional.cross_entropy(self.inner(pixel_values), labels))


def tokens(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.long, device="meta")


def language(settings: Any, examples: int) -> tuple[nn.Module, dict[str, Tensor]]:
    length = settings.protocol.sequence_length
    batch = {"input_ids": tokens(examples, length), "labels": tokens(examples, length)}
    if hasattr(settings.model, "layers"):
        return build_model(settings.model, 0, device="meta"), batch
    with torch.device("meta"):  # transformers' own defaults are LLaMA-7B's sizes, and the weights are on the Hub
        return AutoModelForCausalLM.from_config(LlamaConfig()), batch


def encoder(settings: Any, examples: int, outputs: int | None) -> tuple[nn.Module, dict[str, Tensor]]:
    with torch.device("meta"):
        model = build_encoder(replace(settings.model, weights=None), outputs, 0, "meta")
    names = ("input_ids", "attention_mask", "token_type_ids")
    batch = {name: tokens(examples, settings.protocol.sequence_length) for name in names}
    return model, {**batch, "labels": tokens(examples, 2) if outputs is None else tokens(examples)}


def images(settings: Any, examples: int) -> tuple[nn.Module, dict[str, Tensor]]:
    size = settings.model.size
    pixels = torch.zeros(examples, 3, size, size, device="meta")
    return Classifier(build_classifier(settings.model, 0, "meta")), {"pixel_values": pixels, "labels": tokens(examples)}


BUILD: dict[str, Callable[[Any, int], tuple[nn.Module, dict[str, Tensor]]]] = {
    "bert_squad": lambda settings, examples: encoder(settings, examples, None),
    "bert_glue": lambda settings, examples: encoder(settings, examples, 2),
    "deit_imagenet": images,
    "vit_cifar10": images,
}


def models(name: str) -> list[TrainingSettings]:
    """Settings of one run per model of tier paper, those with training steps."""
    experiment = registry.experiment(name)
    found = experiment.cells("paper", tuple(MethodRef(method) for method in experiment.methods))
    return list({str(cell.settings.model): cell.settings for cell in found if cell.settings.training.steps}.values())


def predicted(name: str, settings: TrainingSettings) -> float:
    """Gigabytes at the peak of a dense step in bf16 under autocast, with AdamW."""
    training = settings.training
    model, batch = BUILD.get(name, language)(settings, training.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate)
    return MemoryBudget(1, model, optimizer, mixed=True).peak(batch, training.micro_batch_size) / 1e9


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "llama_pretraining" else name for name in PAPER]
)
def test_the_memory_shown_is_what_shapes_predict(name: str) -> None:
    told = registry.experiment(name).tiers["paper"].memory
    largest = max(predicted(name, settings) for settings in models(name))
    assert told == pytest.approx(largest, rel=0.1, abs=0.1)


@pytest.mark.parametrize("name", PAPER)
def test_tier_paper_tells_devices_hours_memory_data_and_disk(name: str, tmp_path: Path) -> None:
    experiment = registry.experiment(name)
    plan = experiment.tiers["paper"]
    assert plan.memory and plan.data and plan.disk and plan.data < plan.disk
    text = printed(name, Store(tmp_path))
    (row,) = (line for line in text.splitlines() if line.startswith(f"{name} ") and plan.machine in line)
    hours = f"{plan.hours:,.0f}"
    assert hours in row and text.count(" GB", text.index(row), text.index(row) + len(row)) >= 3


def test_hours_are_the_share_of_what_is_left(tmp_path: Path) -> None:
    experiment = registry.experiment("vit_cifar10")
    (needs,) = make_plan([experiment], "paper", Store(tmp_path), (MethodRef("dense"),), (0,)).needs
    assert needs.runs == 1 and needs.hours == pytest.approx(experiment.tiers["paper"].hours / 27)


def test_columns_of_which_nothing_is_said_are_left_out(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    terminal.print_plan(make_plan([registry.experiment("mismatch_error")], "smoke", Store(tmp_path)), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    head = lines[lines.index(next(line for line in lines if line.startswith("what the experiments say"))) + 1]
    assert head.split() == ["experiment", "runs", "hours", "machine"]


def printed(name: str, store: Store) -> str:
    console = Console(file=io.StringIO(), width=200)
    terminal.print_plan(make_plan([registry.experiment(name)], "paper", store), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
