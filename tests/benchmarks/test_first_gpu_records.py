"""The first records of tier gpu are what its cells would write: their configurations have the same hashes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import registry
from benchmarks.execution import requirements
from benchmarks.experiment import Cell, MethodRef
from benchmarks.experiments import coupled_vs_uncoupled, inference_speed, training_speed
from benchmarks.specs.matched import CONTROLS
from results import RunRecord, Store

NAMES = ("coupled_vs_uncoupled", "training_speed", "inference_speed", "training_memory")
COMMIT = "edcd9e7e3545445f5756b7354f290b6320cbe3fb"
TRIAL_STEPS = 500
"""Steps of the three dense runs by which the learning rate was chosen."""


def first_records(status: str | None = "finished") -> list[RunRecord]:
    return [record for record in Store().records(tier="gpu", status=status) if record.commit == COMMIT]


def is_trial(record: RunRecord) -> bool:
    return record.config.get("training", {}).get("steps") == TRIAL_STEPS


def cells(name: str) -> tuple[Cell, ...]:
    experiment = registry.experiment(name)
    return experiment.cells("gpu", tuple(MethodRef(method) for method in experiment.methods))


def test_they_are_there() -> None:
    assert {record.experiment for record in first_records()} == set(NAMES)
    assert (len(first_records()), len(first_records("failed"))) == (15, 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_one_belongs_to_a_cell_of_its_tier(name: str) -> None:
    hashes = {cell.config_hash for cell in cells(name)}
    own = [record for record in first_records() if record.experiment == name and not is_trial(record)]
    assert own and {record.config_hash for record in own} <= hashes


def test_the_trials_of_the_learning_rate_are_of_the_same_scale() -> None:
    scale = coupled_vs_uncoupled.SCALES["gpu"]
    trials = {record.config["training"]["learning_rate"]: record for record in first_records() if is_trial(record)}
    assert set(trials) == {1e-3, 2e-3, 4e-3}
    for rate, record in trials.items():
        training = replace(scale.training, steps=TRIAL_STEPS, learning_rate=rate)
        short = replace(scale, training=training, start_step=50, end_step=375, interval=25)
        cell = Cell(record.experiment, "gpu", "dense", short.settings(MethodRef("dense"), None))
        assert cell.config_hash == record.config_hash
    best = min(trials, key=lambda rate: trials[rate].metrics["perplexity"].value)
    assert best == scale.training.learning_rate


def test_what_failed_for_its_widths_is_no_cell_any_more_and_is_told_beforehand() -> None:
    for record in first_records("failed"):
        module = {"training_speed": training_speed, "inference_speed": inference_speed}[record.experiment]
        (finer,) = [
            cell
            for cell in module.cells("gpu", (MethodRef(record.method),))
            if cell.settings.target == 0.3
            and cell.settings.model.name == "llama"
            and (cell.settings.protocol.mode, cell.settings.protocol.phase)
            == ("plain", record.config["protocol"]["phase"])
        ]
        settings = replace(finer.settings, protocol=replace(finer.settings.protocol, width_multiple=64))
        old = replace(finer, settings=settings)
        assert old.config_hash == record.config_hash
        assert "at least 0.3412 of the block parameters of llama" in (requirements.unreachable(old) or "")
        assert requirements.unreachable(finer) is None


def test_the_controls_exist_with_three_seeds() -> None:
    experiment = registry.experiment("coupled_vs_uncoupled")
    assert experiment.tiers["gpu"].seeds == (0, 1, 2)
    found = {(cell.method, cell.settings.target) for cell in cells("coupled_vs_uncoupled") if cell.seeds is None}
    assert {(name, target) for name in CONTROLS for target in (0.5, 0.3)} <= found
