"""A call with a deadline: its order, what it begins, what it cuts off, and what it says."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from benchmarks.__main__ import main
from benchmarks.execution import requirements
from benchmarks.execution.budget import RESERVE_SECONDS, Budget, order_of_worth
from benchmarks.execution.campaign import Summary, carry_out_plan
from benchmarks.execution.plan import Plan, PlannedRun, make_plan
from benchmarks.execution.timetable import by_worth, forecast
from benchmarks.experiment import Cell, Run, RunContext
from results.record import RunRecord
from results.store import Store
from tests.benchmarks.tiny_runs import ORIGIN, carry_out, run_context, tiny_experiment, use_tiny_experiment

METHODS = ("dense", "ecospa", "magnitude", "movement")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def budget(seconds: float, work: Path, clock: Clock) -> Budget:
    """A budget whose last run has to be over after some seconds."""
    return Budget((seconds + RESERVE_SECONDS) / 60, work, clock)


class Settings(SimpleNamespace):
    """Settings of a cell that nobody runs."""

    def to_config(self) -> dict[str, str]:
        return {"name": self.name}


def planned(name: str, seed: int, worth: int = 0, **changes: object) -> PlannedRun:
    run = Run(Cell("one", "gpu", name, Settings(name=name)), seed)
    return replace(PlannedRun(run, "pending", worth=worth), **changes)  # type: ignore[arg-type]


def matched(name: str, seed: int, to: PlannedRun, worth: int) -> PlannedRun:
    own = to.run.cell
    reference = SimpleNamespace(config_hash=own.config_hash, method=own.method, seed=lambda seed: seed)
    return PlannedRun(
        Run(Cell("one", "gpu", name, Settings(name=name, reference=reference)), seed), "pending", worth=worth
    )


def names(runs: tuple[PlannedRun, ...]) -> list[tuple[str, int]]:
    return [(one.run.cell.method, one.run.seed) for one in runs]


def test_first_seeds_come_first_and_headline_cells_first_among_them() -> None:
    runs = [planned(name, seed, worth) for name, worth in (("a", 0), ("b", 2), ("c", 1), ("d", 2)) for seed in (1, 0)]
    assert names(order_of_worth(runs)) == [*((name, 0) for name in "bdca"), *((name, 1) for name in "bdca")]


def test_a_control_comes_after_the_run_that_it_is_matched_to() -> None:
    ecospa = planned("ecospa", 0, worth=1)
    control = matched("control", 0, ecospa, worth=5)
    assert names(order_of_worth([control, planned("dense", 0, 2), ecospa])) == [
        ("dense", 0), ("ecospa", 0), ("control", 0),
    ]  # fmt: skip


def test_worth_is_no_part_of_a_configuration() -> None:
    plain = tiny_experiment(METHODS)
    valued = replace(plain, worth=lambda cell: int(cell.method == "ecospa"))
    plans = [make_plan([one], "smoke", Store("nowhere")) for one in (plain, valued)]
    assert [one.run.cell.config_hash for one in plans[0].runs] == [one.run.cell.config_hash for one in plans[1].runs]
    assert names(by_worth(plans[1]).runs)[0] == ("ecospa", 0)


def test_estimates_are_those_of_the_cell_or_of_similar_ones_or_what_is_stated(tmp_path: Path) -> None:
    own = budget(600, tmp_path, Clock())
    stated = planned("a", 0, stated=100.0)
    similar, exact = replace(stated, longest=50.0), replace(stated, longest=50.0, exact=True)
    found = [own.estimate(one) for one in (stated, similar, exact)]
    assert [one.basis for one in found] == ["stated", "similar", "measured"]
    assert found[0].seconds > found[1].seconds > found[2].seconds > 50.0
    own.learn(
        SimpleNamespace(status="finished", config_hash=exact.run.cell.config_hash, experiment="one", seconds=80.0)
    )  # type: ignore[arg-type]
    assert own.estimate(stated).basis == "measured" and own.estimate(exact).seconds > 80.0


def test_what_a_checkpoint_holds_is_not_estimated_again(tmp_path: Path) -> None:
    run, own = planned("a", 0, longest=100.0, exact=True), budget(600, tmp_path, Clock())
    before = own.estimate(run).seconds
    place = tmp_path / run.run.folder_name / "checkpoint-5"
    place.mkdir(parents=True)
    (place / "run.json").write_text(json.dumps({"method": {}, "progress": {"seconds": 70.0}}))
    assert own.estimate(run).seconds == pytest.approx(before - 70.0)


def made(
    plan: Plan, store: Store, work: Path, seconds: float, each: float, clock: Clock, jobs: int = 1
) -> tuple[Summary, str]:
    """Carry out a plan whose every run takes some seconds of the clock; the summary and what was printed."""
    console = Console(file=io.StringIO(), width=200)

    def execute(run: Run, context: RunContext, origin: tuple[str, bool]) -> RunRecord:
        clock.now += each
        context.progress(1, 2)
        return carry_out(run, context, origin)

    context = replace(run_context(work), jobs=jobs)
    summary = carry_out_plan(plan, store, context, console, execute, budget(seconds, work, clock))
    assert isinstance(console.file, io.StringIO)
    return summary, console.file.getvalue()


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plan:
    """Eight runs of which each is estimated at between five and six seconds."""
    monkeypatch.setattr("benchmarks.execution.campaign.provenance.commit", lambda: ORIGIN)
    experiment = tiny_experiment(METHODS, seeds=(0, 1))
    use_tiny_experiment(monkeypatch, experiment)
    return by_worth(make_plan([experiment], "smoke", Store(tmp_path / "records")))


def test_nothing_begins_that_cannot_end_in_time(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "records")
    summary, _ = made(plan, store, tmp_path / "work", seconds=20.0, each=6.0, clock=Clock())
    assert [record.method for record in summary.finished] == ["dense", "ecospa", "magnitude"]
    assert [record.seed for record in store.records()] == [0, 0, 0]
    assert names(tuple(one.planned for one in summary.left_out)) == [
        ("movement", 0), *((name, 1) for name in METHODS),
    ]  # fmt: skip
    assert not any(one.cut_off for one in summary.left_out)


def test_a_run_that_overruns_is_cut_off_and_no_failure(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "records")
    summary, text = made(plan, store, tmp_path / "work", seconds=20.0, each=30.0, clock=Clock())
    assert summary.finished == summary.failed == () and store.records(status=None) == []
    assert [one.cut_off for one in summary.left_out] == [True] + 7 * [False]
    assert "cut off  tiny dense seed 0: the time is over" in text


def test_without_a_deadline_everything_is_made(plan: Plan, tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    summary = carry_out_plan(plan, Store(tmp_path), run_context(tmp_path / "work"), console, carry_out)
    assert len(summary.finished) == 8 and summary.left_out == ()


def test_the_forecast_begins_nothing_that_cannot_end(plan: Plan, tmp_path: Path) -> None:
    clock = Clock()
    for jobs, count in ((1, 3), (2, 6)):
        table = forecast(plan, budget(20.0, tmp_path, clock), jobs)
        assert [one.planned for one in table.entries] == list(plan.runs[:count])
        assert all(one.start + one.estimate.seconds <= 20.0 for one in table.entries)
        assert len(table.left_out) == 8 - count and "stated" in table.left_out[0].reason


def test_a_control_of_what_is_left_out_is_left_out(tmp_path: Path) -> None:
    ecospa = planned("ecospa", 0, longest=1000.0, exact=True)
    runs = (ecospa, matched("control", 0, ecospa, 0))
    table = forecast(Plan("gpu", runs), budget(300.0, tmp_path, Clock()))
    assert table.entries == () and "matched to a run of ecospa" in table.left_out[1].reason


def test_the_dry_run_shows_order_what_is_left_out_and_the_pack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "cuda_memory", lambda: ())
    monkeypatch.setenv("COLUMNS", "200")
    words = ["run", "training_speed", "mismatch_error", "--tier", "gpu", "--dry-run", "--minutes", "9"]
    assert main([*words, "--records", str(tmp_path / "records"), "--work", str(tmp_path / "work")]) == 0
    out = capsys.readouterr().out
    assert "this machine lacks the device" in out
    first = next(line for line in out.splitlines() if line.startswith("1 "))
    assert "training_speed" in first and "ecospa 0.5 llama" in first and first.split()[-1] == "0"
    assert "left out" in out and "of training_speed: may take" in out
    assert "as a pack for another machine (python -m benchmarks pack OUT): " in out
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "1e9"])
def test_minutes_have_a_range(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "mismatch_error", "--minutes", minutes, "--dry-run"]) == 2
    assert "minutes is" in capsys.readouterr().out


def test_records_are_packed_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import commands
    from results.archive import import_records

    use_tiny_experiment(monkeypatch, tiny_experiment(METHODS[:2]))
    obey = commands.run
    monkeypatch.setattr(commands, "run", lambda options, console: obey(options, console, carry_out))
    words = ["run", "tiny", "--minutes", "5", "--records", str(tmp_path / "records"), "--work", str(tmp_path / "work")]
    assert main(words) == 0
    assert "2 records packed" in capsys.readouterr().out
    (archive,) = (tmp_path / "work").glob("records-smoke-*.zip")
    assert len(import_records(archive, Store(tmp_path / "here")).added) == 2
    named = tmp_path / "named.zip"
    assert main([*words, "--force", "--pack", str(named)]) == 0
    assert len(import_records(named, Store(tmp_path / "here")).added) == 2
