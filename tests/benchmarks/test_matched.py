"""Controls that are matched to another run: they wait for it, take over its size or its cost, and say which it was."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.execution import campaign
from benchmarks.execution.campaign import carry_out_plan
from benchmarks.execution.plan import make_plan
from benchmarks.execution.recording import is_refusal
from benchmarks.experiment import Cell, Experiment, MethodRef, Run, RunContext, Tier, TierPlan
from benchmarks.metrics.training_length import average_blocks
from benchmarks.procedures import matched_training
from benchmarks.specs.matched import CONTROLS, control_cell
from benchmarks.specs.scale import Scale
from results.plan_history import PlanEvent
from results.record import RunRecord
from results.store import Store
from tests.benchmarks.tiny_runs import ORIGIN, carry_out, run_context, settings, use_tiny_experiment, use_tiny_text

TARGET = 0.5


def scale() -> Scale:
    own = settings("ecospa", TARGET)
    curve = own.shrink
    return Scale(
        own.model, own.data, own.protocol, own.training, curve.start_step, curve.end_step, curve.interval,
        curve.width_multiple,
    )  # fmt: skip


def experiment(seeds: tuple[int, ...] = (0, 1)) -> Experiment:
    def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
        ours = Cell("tiny", tier, "ecospa", scale().settings(MethodRef("ecospa"), TARGET))
        made = {"ecospa": ours, **{name: control_cell(name, scale(), ours) for name in CONTROLS}}
        return tuple(made[method.name] for method in methods)

    return Experiment(
        name="tiny",
        question="does it wait",
        tiers={"smoke": TierPlan(seeds, 0.001, "any")},
        methods=("final_shape_other_seed", "final_shape", "ecospa"),
        cells=cells,
        sources=lambda tier: (),
    )


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    use_tiny_experiment(monkeypatch, experiment())
    monkeypatch.setattr(campaign.provenance, "commit", lambda: ORIGIN)


@pytest.fixture
def place(tmp_path: Path) -> RunContext:
    return replace(run_context(tmp_path / "work"), records=tmp_path / "records")


def made(place: RunContext, name: str, seed: int = 0) -> RunRecord:
    (cell,) = experiment().cells("smoke", (MethodRef(name),))
    record = carry_out(Run(cell, seed), place, ORIGIN)
    if record.status == "finished":
        Store(place.records).append(record)  # type: ignore[arg-type]
    return record


def value(record: RunRecord, name: str) -> float:
    return record.metrics[name].value


def test_controls_have_the_size_and_the_cost_of_the_run_that_they_name(place: RunContext) -> None:
    ours = made(place, "ecospa")
    shape, shape_flops, flops, average = (
        made(place, name)
        for name in ("final_shape", "final_shape_equal_flops", "small_dense_equal_flops", "dense_average_size")
    )
    for record in (shape, shape_flops):
        assert record.plan_history[0].widths == ours.plan_history[-1].widths
        assert value(record, "block_parameters") == value(ours, "block_parameters")
    assert value(shape, "training_steps") == value(ours, "training_steps") == 12
    for record in (shape_flops, flops):
        assert abs(value(record, "run_flops") - value(ours, "run_flops")) <= value(record, "step_flops") / 2
        assert value(record, "training_steps") > 12
        assert record.loss_curve[-1][0] == value(record, "training_steps")
    largest = 0.1 * value(ours, "average_block_parameters")
    assert 0 <= value(average, "block_parameters") - average_blocks(ours.plan_history, 12) < largest
    assert all(record.payload["matched_to"] == ours.id for record in (shape, shape_flops, flops, average))
    assert shape.config["target"] == TARGET and shape.config["matched"]["reference"]["method"] == "ecospa"


def test_another_seed_gives_its_shape_and_nothing_else(place: RunContext) -> None:
    others = [made(place, "ecospa", seed) for seed in (0, 1)]
    record = made(place, "final_shape_other_seed", 1)
    assert record.payload["matched_to"] == others[0].id
    assert record.plan_history[0].widths == others[0].plan_history[-1].widths
    assert record.loss_curve != made(place, "final_shape_other_seed", 0).loss_curve


def test_a_control_without_its_run_fails_and_says_which_to_make(place: RunContext) -> None:
    record = made(place, "final_shape")
    assert record.status == "failed" and not is_refusal(record)
    assert "which has no finished record" in (record.error or "")
    assert "python -m benchmarks run tiny --tier smoke --methods ecospa --seeds 0" in (record.error or "")


def test_the_unfinished_work_of_a_control_is_where_the_campaign_looks(place: RunContext) -> None:
    (cell,) = experiment().cells("smoke", (MethodRef("final_shape"),))
    run = Run(cell, 0)
    inner = matched_training.MatchedRun(replace(cell, settings=settings()), 0, run)
    assert inner.folder_name == run.folder_name != Run(inner.cell, 0).folder_name


def test_a_plan_puts_controls_after_their_runs_row_by_row(tmp_path: Path) -> None:
    plan = make_plan([experiment()], "smoke", Store(tmp_path))
    order = [(one.run.cell.method, one.run.seed) for one in plan.runs]
    assert order == [
        ("ecospa", 0), ("final_shape", 0), ("ecospa", 1), ("final_shape_other_seed", 0),
        ("final_shape_other_seed", 1), ("final_shape", 1),
    ]  # fmt: skip


def test_a_control_whose_run_is_neither_there_nor_coming_is_unavailable(tmp_path: Path) -> None:
    plan = make_plan([experiment()], "smoke", Store(tmp_path), (MethodRef("final_shape"),), (0,))
    (one,) = plan.runs
    assert one.state == "unavailable" and "matched to a run of ecospa" in str(one.reason)
    both = make_plan([experiment()], "smoke", Store(tmp_path), (MethodRef("final_shape"), MethodRef("ecospa")), (0,))
    assert {one.state for one in both.runs} == {"pending"}


def test_seeds_of_a_cell_are_its_own_unless_the_call_names_some(tmp_path: Path) -> None:
    own = experiment((0,))

    def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
        return tuple(replace(cell, seeds=(0, 1, 2)) for cell in own.cells(tier, methods))

    several = replace(own, cells=cells, methods=("ecospa",))
    assert [one.run.seed for one in make_plan([several], "smoke", Store(tmp_path)).runs] == [0, 1, 2]
    assert [one.run.seed for one in make_plan([several], "smoke", Store(tmp_path), seeds=(5,)).runs] == [5]


def test_a_cell_that_two_experiments_share_is_run_once_under_its_owner(tmp_path: Path) -> None:
    owner = experiment((0,))
    guest = replace(owner, name="guest", methods=("ecospa",))
    plan = make_plan([owner, guest], "smoke", Store(tmp_path))
    assert {one.run.cell.experiment for one in plan.runs} == {"tiny"}
    assert sum(one.run.cell.method == "ecospa" for one in plan.runs) == 1
    assert [one.experiment for one in plan.needs] == ["tiny"]  # nothing is left for the guest to ask for


def test_with_several_jobs_a_control_waits_until_the_record_is_written(place: RunContext) -> None:
    began, store = [], Store(place.records)  # type: ignore[arg-type]
    lock = threading.Lock()

    def execute(run: Run, own: RunContext, origin: tuple[str, bool]) -> RunRecord:
        with lock:
            began.append((run.cell.method, run.seed, len(store.records())))
        return carry_out(run, own, origin)

    plan = make_plan([experiment((0,))], "smoke", store, (MethodRef("final_shape"), MethodRef("ecospa")))
    summary = carry_out_plan(plan, store, replace(place, jobs=2), Console(file=io.StringIO()), execute)
    assert [record.method for record in summary.finished] == ["ecospa", "final_shape"]
    assert began == [("ecospa", 0, 0), ("final_shape", 0, 1)]


def test_an_interrupt_leaves_nobody_waiting(place: RunContext) -> None:
    def execute(run: Run, own: RunContext, origin: tuple[str, bool]) -> RunRecord:
        raise KeyboardInterrupt

    store = Store(place.records)  # type: ignore[arg-type]
    plan = make_plan([experiment((0,))], "smoke", store, (MethodRef("final_shape"), MethodRef("ecospa")))
    with pytest.raises(KeyboardInterrupt):
        carry_out_plan(plan, store, replace(place, jobs=2), Console(file=io.StringIO()), execute)
    deadline = time.monotonic() + 20
    while any("ThreadPool" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a worker still waits for a run that will not come"
        time.sleep(0.01)


def test_the_average_size_counts_the_steps_that_were_trained_at_each() -> None:
    history = [PlanEvent(0, 200, 100, {}), PlanEvent(4, 150, 50, {}), PlanEvent(6, 120, 20, {})]
    assert average_blocks(history, 10) == (4 * 100 + 2 * 50 + 4 * 20) / 10
