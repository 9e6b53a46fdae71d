"""Failures on purpose: their cells differ in what they should, and run at toy size with what was told in the record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ecospa
from benchmarks.experiment import MethodRef, Run, RunContext, RunResult
from benchmarks.experiments import failure_signatures
from benchmarks.specs.synthetic import ModelShape
from benchmarks.training.broken_importance import BROKEN, broken_importance
from tests.baselines.runs import tiny_gpt2
from tests.benchmarks.tiny_runs import use_tiny_text


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    subject = failure_signatures.SUBJECTS["smoke"]
    healthy = subject.healthy
    pretraining = replace(healthy.model.pretraining, steps=150, batch_size=4, micro_batch_size=4, warmup_steps=5)
    small = replace(
        subject,
        healthy=replace(
            healthy,
            shrink=replace(healthy.shrink, total_steps=40, start_step=10, end_step=34, interval=4, width_multiple=1),
            watch=replace(healthy.watch, window=5, patience=15, sequences=8),
            model=replace(healthy.model, width=32, heads=2, vocabulary=300, positions=16, pretraining=pretraining),
            protocol=replace(healthy.protocol, tokenizer="bpe-300", sequence_length=16, stride=15),
            training=replace(healthy.training, steps=40, batch_size=4, micro_batch_size=4, learning_rate=1e-3),
        ),
        widths=replace(subject.widths, model=ModelShape("gpt2", layers=2, width=64, heads=2, length=16), turns=2),
    )
    monkeypatch.setattr(failure_signatures, "SUBJECTS", {"smoke": small})


def outcome(name: str, folder: Path) -> RunResult:
    (cell,) = failure_signatures.cells("smoke", (MethodRef(name),))
    return failure_signatures.EXPERIMENT.execute(Run(cell, 0), RunContext(folder, threads=1))


@pytest.mark.parametrize("tier", ["smoke", "cpu"])
def test_every_failure_differs_from_the_healthy_run_in_its_cause_alone(tier: str) -> None:
    refs = tuple(MethodRef(name) for name in failure_signatures.METHODS)
    healthy, steep, turned, first, widths = (cell.settings for cell in failure_signatures.cells(tier, refs))  # type: ignore[arg-type]
    assert (steep.target, steep.shrink.start_step) == (0.1, 0) and steep.shrink.end_step < healthy.shrink.start_step + 1
    assert replace(steep, shrink=healthy.shrink) == healthy
    assert (turned.importance, first.importance) == ("reversed", "first_block")
    assert replace(turned, importance=None) == replace(first, importance=None) == healthy
    assert min(widths.multiples) == 1 < max(widths.multiples) and widths.target == healthy.target


def test_broken_importances_are_as_they_say() -> None:
    model = tiny_gpt2()
    pairs = ecospa.coupled_pairs(model)
    tokens = torch.arange(8).view(1, 8)
    model(input_ids=tokens, labels=tokens).loss.backward()
    plain = ecospa.CoupledEstimator(model, pairs)
    turned, first = (BROKEN[name](model, pairs) for name in ("reversed", "first_block"))
    for estimator in (plain, turned, first):
        estimator.update()
    assert turned.importances() == {name: -value for name, value in plain.importances().items()}
    low = {name for name, value in first.importances().items() if value == min(first.importances().values())}
    assert low == {pair.name for pair in pairs if ".h.0." in pair.name}
    assert broken_importance(None) is None
    with pytest.raises(KeyError):
        broken_importance("unheard of")


@pytest.mark.usefixtures("toy")
def test_failures_are_told_and_the_healthy_run_is_not(tmp_path: Path) -> None:
    told = {}
    for name in ("healthy", "early_and_steep", "reversed_importance"):
        made = outcome(name, tmp_path)
        told[name] = {found["signature"] for found in made.payload["findings"]}
        assert made.loss_curve[-1][0] == 40 and len(made.plan_history) > 2
        for found in made.payload["findings"]:
            assert found["since"] <= found["step"] <= 40 and found["after"] > found["before"]
    assert told["healthy"] == set()
    assert "divergence" in told["early_and_steep"]
    assert "reversed ranking" in told["reversed_importance"]


@pytest.mark.usefixtures("toy")
def test_widths_of_one_size_are_timed_and_checked(tmp_path: Path) -> None:
    made = outcome("irregular_widths", tmp_path)
    assert [row["precision"] for row in made.payload["widths"]] == ["fp32"] * 4 + ["bf16"] * 4
    rows = {row["name"]: row for row in made.payload["widths"] if row["precision"] == "fp32"}
    assert list(rows) == ["dense", "multiples of 16", "one index less", "multiples of 1"]
    assert (rows["dense"]["step_flops_ratio"], rows["dense"]["irregular_pairs"]) == (1.0, 0)
    assert rows["multiples of 16"]["irregular_pairs"] == 0
    assert rows["one index less"]["irregular_pairs"] == rows["one index less"]["pairs"] == 6
    assert rows["one index less"]["step_flops_ratio"] < rows["multiples of 16"]["step_flops_ratio"] < 1
    assert not rows["dense"]["no_speedup"] and rows["dense"]["rounded_time_ratio"] == 1.0
    assert made.metrics["step_flops_ratio"].value == rows["multiples of 16"]["step_flops_ratio"]
