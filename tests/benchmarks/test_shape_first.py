"""Runs whose shape a probe finds first: what they cost, where they stop, and that a kill changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import registry
from benchmarks.execution import campaign
from benchmarks.experiment import TIERS, Cell, MethodRef, Run, RunContext, execute_procedure
from benchmarks.experiments import coupled_vs_uncoupled, shape_first
from benchmarks.procedures import shape_first as procedure
from benchmarks.procedures import training
from benchmarks.specs.scale import Scale
from benchmarks.specs.shape_first import ProbeSpec, shape_first_settings
from ecospa import Shape
from results.record import RunRecord
from results.store import Store
from tests.benchmarks.tiny_runs import (
    ORIGIN,
    carry_out,
    run_context,
    settings,
    tiny_experiment,
    use_tiny_experiment,
    use_tiny_text,
)
from tests.results.factory import make_record

TARGET = 0.5
PROBE = ProbeSpec("ecospa", 0.5)


def scale() -> Scale:
    own = settings("ecospa", TARGET)
    return Scale(own.model, own.data, own.protocol, own.training, 2, 10, 2, own.shrink.width_multiple)  # type: ignore[arg-type]


def ecospa_cell() -> Cell:
    return Cell("tiny", "smoke", "ecospa", scale().settings(MethodRef("ecospa"), TARGET))


def shape_cell(probe: ProbeSpec, reference: Cell | None = None) -> Cell:
    return Cell("tiny", "smoke", "shape", shape_first_settings("shape", scale(), TARGET, probe, reference))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    """A place for runs of the experiment "tiny", whose settings name their procedure."""
    use_tiny_text(monkeypatch)
    use_tiny_experiment(monkeypatch, tiny_experiment((), execute_procedure))
    monkeypatch.setattr(campaign.provenance, "commit", lambda: ORIGIN)
    return replace(run_context(tmp_path / "work"), records=tmp_path / "records")


def made(place: RunContext, cell: Cell, seed: int = 0) -> RunRecord:
    record = carry_out(Run(cell, seed), place, ORIGIN)
    if record.status == "finished":
        Store(place.records).append(record)  # type: ignore[arg-type]
    return record


def value(record: RunRecord, name: str) -> float:
    return record.metrics[name].value


def test_the_probe_is_an_ordinary_run_and_its_cost_is_counted(place: RunContext) -> None:
    cell = shape_cell(PROBE)
    record = made(place, cell)
    assert record.status == "finished", record.error
    probe = made(place, Cell("tiny", "smoke", "probe", procedure.probe_settings(cell.settings)))
    assert record.plan_history[0].widths == probe.plan_history[-1].widths
    assert len(record.plan_history) == 1 and value(record, "training_steps") == 12 == record.loss_curve[-1][0]
    shape = Shape(**{name: part for name, part in record.payload["shape"].items() if name != "version"})
    assert shape.widths == record.plan_history[0].widths and (shape.probe_steps, shape.seeds) == (6, (0,))
    assert value(record, "probe_flops") == shape.probe_flops == value(probe, "run_flops")
    fresh = 12 * value(record, "step_flops")
    assert value(record, "run_flops") == value(probe, "run_flops") + fresh > fresh
    assert value(record, "training_bytes_peak") == value(probe, "training_bytes_peak")
    assert value(record, "block_parameters") == pytest.approx(TARGET * probe.plan_history[0].block_parameters, rel=0.05)


def test_at_equal_flops_the_run_costs_what_ecospa_costs(place: RunContext) -> None:
    ours = made(place, ecospa_cell())
    record = made(place, shape_cell(ProbeSpec("ecospa_units", 0.5), ecospa_cell()))
    assert record.status == "finished", record.error
    assert abs(value(record, "run_flops") - value(ours, "run_flops")) <= value(record, "step_flops") / 2
    assert record.payload["matched_to"] == ours.id
    assert record.config["shape_first"]["reference"]["method"] == "ecospa"


def test_without_its_reference_it_fails_before_the_probe(place: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedure, "train", lambda *arguments: pytest.fail("a probe was trained"))
    record = made(place, shape_cell(PROBE, ecospa_cell()))
    assert record.status == "failed" and "which has no finished record" in (record.error or "")


def test_probes_as_dear_as_the_reference_are_refused(place: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = shape_cell(replace(PROBE, runs=3), ecospa_cell())
    ours = make_record(metrics={"run_flops": 200.0})
    monkeypatch.setattr(procedure, "reference_record", lambda run, context: ours)
    monkeypatch.setattr(procedure, "step_flops_of", lambda run, settings, context: 10)
    dear = procedure.Probed(Shape({"a": 1}, {"a": 2}, 1), {"run_flops": 70.0}, 0.0)
    monkeypatch.setattr(procedure, "_probe", lambda run, number, context: dear)
    monkeypatch.setattr(procedure, "_shape", lambda run, context, probes: dear.shape)
    record = made(place, cell)
    assert record.status == "failed" and "probe.share is 0.5: the probes cost 210 FLOPs" in (record.error or "")


def test_several_probes_have_seeds_of_their_own_and_are_averaged(place: RunContext) -> None:
    record = made(place, shape_cell(replace(PROBE, runs=2)), seed=1)
    assert record.status == "finished", record.error
    shape = record.payload["shape"]
    assert shape["seeds"] == [1, 1001] and shape["probe_steps"] == 12
    assert value(record, "block_parameters") == pytest.approx(TARGET * 25_000, rel=0.1)


@pytest.mark.slow
def test_a_kill_after_the_probe_changes_nothing(place: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(place, shape_cell(PROBE))
    again = replace(place, folder=place.folder / "again")
    execute, calls = training.execute, []

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return execute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(again, shape_cell(PROBE))
    run = Run(shape_cell(PROBE), 0)
    assert list((again.folder / run.folder_name / "probe-0").glob("checkpoint-*"))  # where the campaign cleans up
    resumed = made(again, shape_cell(PROBE))
    assert resumed.loss_curve == whole.loss_curve and resumed.payload["shape"] == whole.payload["shape"]
    assert value(resumed, "run_flops") == value(whole, "run_flops")


def test_a_probe_is_the_experiments_curve_in_small() -> None:
    shrink = shape_first.SCALES["cpu"].settings(MethodRef("ecospa"), TARGET).shrink
    for share in (0.1, 0.2):
        small = ProbeSpec("ecospa", share).shrink(shrink)
        assert small.total_steps == small.end_step == round(share * shrink.total_steps)
        assert small.start_step / small.total_steps == pytest.approx(shrink.start_step / shrink.total_steps, rel=0.03)
        assert 35 <= (small.end_step - small.start_step) / small.interval <= 60
        assert small.target_size == shrink.target_size


@pytest.mark.parametrize("tier", TIERS)
def test_the_controls_are_those_of_coupled_vs_uncoupled(tier: str) -> None:
    experiment = registry.experiment("shape_first")
    cells = experiment.cells(tier, tuple(MethodRef(name) for name in experiment.methods))  # type: ignore[arg-type]
    lender = registry.experiment("coupled_vs_uncoupled")
    lent = lender.cells(tier, tuple(MethodRef(name) for name in lender.methods))  # type: ignore[arg-type]
    hashes = {cell.config_hash for cell in lent}
    shared = {cell.method for cell in cells if cell.config_hash in hashes}
    assert shared == set(shape_first.SHARED) == {cell.method for cell in cells if cell.experiment != "shape_first"}
    ours = coupled_vs_uncoupled.cell(tier, MethodRef("ecospa"), shape_first.TARGET)  # type: ignore[arg-type]
    for cell in cells:
        reference = getattr(cell.settings, "reference", None)
        if cell.method.endswith("equal_flops"):
            assert reference.config_hash == ours.config_hash
        kept = cell.settings.shrink
        if cell.method.endswith("_kept"):
            assert kept.end_step == round(float(cell.method[6:8]) / 100 * kept.total_steps)
