"""Compiled blocks, a fused optimizer and workers change how long a training takes, not what comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.data.source import Corpus
from benchmarks.execution.provenance import ROOT
from benchmarks.metrics.flops import utilisation_metrics
from benchmarks.specs.training import Throughput
from benchmarks.timing import compilation
from benchmarks.timing.step_time import compile_metrics, steady_seconds
from benchmarks.training import step_clock
from benchmarks.training.compiled_blocks import compiled_blocks
from benchmarks.training.step_clock import StepClock
from tests.benchmarks import tiny_runs
from tests.benchmarks.faster_runs import faster
from tests.benchmarks.tiny_runs import run_context, run_of, train, use_tiny_text


@pytest.fixture(autouse=True)
def tiny_text(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)


def test_records_from_before_there_were_throughput_settings_keep_their_hash() -> None:
    run = run_of("ecospa", 0.5)
    assert "throughput" not in run.cell.config["training"]
    other = faster(run, Throughput(fused_optimizer=True)).cell
    assert other.config["training"]["throughput"] == {
        "compile_blocks": False, "fused_optimizer": True, "data_workers": 0,
    }  # fmt: skip
    assert other.config_hash != run.cell.config_hash


def test_a_fused_optimizer_and_workers_leave_the_losses_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused: list[Any] = []
    made = torch.optim.AdamW.__init__

    def recording(self: Any, *arguments: Any, **options: Any) -> None:
        fused.append(options.get("fused"))
        made(self, *arguments, **options)

    run = run_of("ecospa", 0.5)
    eager = train(run, run_context(tmp_path / "eager"))
    monkeypatch.setattr(torch.optim.AdamW, "__init__", recording)
    found = train(faster(run, Throughput(fused_optimizer=True, data_workers=1)), run_context(tmp_path / "faster"))
    assert fused[0] is True
    assert [loss for _, loss in found.loss_curve] == pytest.approx([loss for _, loss in eager.loss_curve], rel=1e-4)
    assert found.plan_history[-1].widths == eager.plan_history[-1].widths
    values = {name: metric.value for name, metric in found.metrics.items()}
    share = values["training_flops_rate"] / values["device_flops_rate"]
    assert 0 < values["model_flops_utilisation"] < 1 and values["model_flops_utilisation"] == pytest.approx(share)
    assert values["data_seconds"] == 0, "checkpoints after every step fill all gaps"
    assert "compile_seconds" not in values
    assert not {"model_flops_utilisation", "data_seconds"} & set(eager.metrics)


@pytest.mark.slow
def test_compiled_blocks_train_as_eager_ones_do_and_resume(tmp_path: Path) -> None:
    program = Path(__file__).with_name("faster_runs.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    losses = {name: [loss for _, loss in found[name]["losses"]] for name in found if name != "graphs"}
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=1e-4)
    assert losses["resumed"] == losses["uninterrupted"]
    assert found["compiled"]["widths"] == found["eager"]["widths"]
    events = len(found["compiled"]["widths"]) - 1
    assert events >= 3
    assert events < found["graphs"]["unique"], "every event compiles again"
    metrics = found["compiled"]["metrics"]
    assert {"compile_seconds", "recompile_seconds"} <= set(metrics), "no more: half of so few steps compile"
    assert found["eager"]["metrics"]["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("device", "examples", "steps", "backend", "least"),
    [
        pytest.param("cuda", 128, 100, "inductor", 0.4, marks=pytest.mark.gpu),
        pytest.param(
            "cpu", 2, tiny_runs.STEPS, "aot_eager", 0.0, marks=pytest.mark.slow
        ),  # the same lines, not the same speed
    ],
)
def test_ten_million_parameters_reach_two_fifths_of_a_gpus_rate(
    device: Any, examples: int, steps: int, backend: str, least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six blocks, 384 wide, and texts of 256 tokens, as in tier gpu's runs from scratch."""
    monkeypatch.setattr(compilation, "BACKEND", backend)
    text = tiny_runs.corpus()
    monkeypatch.setattr(tiny_runs, "corpus", lambda: Corpus(text.train * 8 * examples, text.evaluation))
    run = run_of(steps=steps)
    settings = run.cell.settings
    training = replace(
        settings.training, batch_size=examples, micro_batch_size=examples, precision="bf16", device=device,
        throughput=Throughput(compile_blocks=True, fused_optimizer=True, data_workers=2),
    )  # fmt: skip
    model = replace(settings.model, layers=6, width=384, heads=6, positions=256)
    protocol = replace(settings.protocol, sequence_length=256, stride=255)
    settings = replace(settings, model=model, protocol=protocol, training=training)
    context = replace(run_context(tmp_path), checkpoint_seconds=3600.0)
    found = train(replace(run, cell=replace(run.cell, settings=settings)), context)
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values["block_parameters"] > 10_000_000 and values["data_seconds"] > 0
    shown = ("model_flops_utilisation", "step_time", "data_seconds", "compile_seconds", "device_flops_rate")
    assert values["model_flops_utilisation"] > least, {name: values[name] for name in shown}


def test_blocks_are_compiled_for_the_training_alone() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=11, n_positions=8))
    names, limit = list(model.state_dict()), torch._dynamo.config.recompile_limit
    with compiled_blocks(model, wanted=True):
        assert all(block._compiled_call_impl is not None for block in model.transformer.h)
        assert torch._dynamo.config.recompile_limit >= 2 * len(model.transformer.h)
        assert list(model.state_dict()) == names
    assert all(block._compiled_call_impl is None for block in model.transformer.h)
    assert torch._dynamo.config.recompile_limit == limit
    with pytest.raises(ValueError, match="no block of a known family"), compiled_blocks(torch.nn.Linear(1, 1), True):
        pass


def test_the_cost_of_compiling_is_what_a_step_takes_longer() -> None:
    found = compile_metrics([9.0, 1.0, 1.0, 4.0, 1.0, 1.0, 3.0, 1.0], events=[0, 3, 6, 8])
    assert found["compile_seconds"].value == 8.0
    assert found["recompile_seconds"].value == 2.5 and found["recompile_seconds"].n == 2
    assert set(compile_metrics([2.0, 1.0, 1.0], events=[0])) == {"compile_seconds"}


def test_steady_seconds_leave_compiling_out() -> None:
    assert steady_seconds([9.0, 1.0, 1.5, 4.0, 1.0], events=[0, 3]) == 1.5 + 1.0 + 1.5 + 1.5 + 1.0


def test_utilisation_is_flops_over_time_over_rate() -> None:
    found = utilisation_metrics(run=600, seconds=3.0, device_rate=400.0)
    assert found["training_flops_rate"].value == 200.0 and found["model_flops_utilisation"].value == 0.5


def test_steps_and_the_gaps_before_them_are_timed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 7.0, 100.0, 101.0])
    monkeypatch.setattr(step_clock, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    clock = StepClock("cpu")
    for step in range(3):
        clock.start()
        clock.stop()
        if step == 1:
            clock.pause()  # a checkpoint was written
    assert clock.finished() == [(1.0, 0.0), (4.0, 2.0), (1.0, 0.0)]
    assert clock.finished() == []


class Event:
    """A CUDA event on a device that works through its marks one second after the other, once it is waited for."""

    recorded = passed = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.recorded += 1
        self.place = Event.recorded

    def query(self) -> bool:
        return self.place <= Event.passed

    def synchronize(self) -> None:
        Event.passed = max(Event.passed, self.place)

    def elapsed_time(self, later: Event) -> float:
        assert later.query() and self.query()
        return 1000.0 * (later.place - self.place)


def test_a_gpu_is_not_waited_for_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: pytest.fail("it would leave the GPU idle"))
    clock = StepClock("cuda")
    for _ in range(3):
        clock.start()
        clock.stop()
    assert clock.finished() == []
    Event.passed = 2
    assert clock.finished() == [(1.0, 0.0)]
    assert clock.finished(wait=True) == [(1.0, 1.0), (1.0, 1.0)]
