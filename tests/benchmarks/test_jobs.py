"""Several runs at a time: they do run together, an interrupt ends all of them, and what they share is made once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import commands
from benchmarks.data.cache import make_once
from benchmarks.execution import campaign
from benchmarks.execution.campaign import carry_out_plan
from benchmarks.execution.plan import make_plan
from benchmarks.execution.progress import Stopped
from benchmarks.experiment import Run, RunContext
from results.record import RunRecord
from results.store import Store
from tests.benchmarks.test_campaign import silent
from tests.benchmarks.tiny_runs import ORIGIN, carry_out, run_context, tiny_experiment, use_tiny_experiment


@pytest.fixture(autouse=True)
def fixed_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign.provenance, "commit", lambda: ORIGIN)


def test_two_runs_are_carried_out_together_and_their_records_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny_experiment(("dense", "ecospa"), seeds=(0, 1))
    use_tiny_experiment(monkeypatch, experiment)
    meeting = threading.Barrier(2, timeout=20)  # broken, and the test with it, where runs come one by one

    def together(run: Run, place: RunContext, origin: tuple[str, bool]) -> RunRecord:
        meeting.wait()
        return carry_out(run, place, origin)

    store = Store(tmp_path / "records")
    place = replace(run_context(tmp_path / "work"), jobs=2)
    summary = carry_out_plan(make_plan([experiment], "smoke", store), store, place, silent(), together)
    assert len(summary.finished) == len(store.records()) == 4
    assert {record.device["runs_at_once"] for record in store.records()} == {2}


def test_an_interrupt_ends_the_runs_in_progress_and_starts_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny_experiment(("dense", "ecospa", "magnitude", "uncoupled"))
    use_tiny_experiment(monkeypatch, experiment)
    begun: list[str] = []
    ended: list[str] = []
    waits = threading.Event()

    def execute(run: Run, place: RunContext, origin: tuple[str, bool]) -> RunRecord:
        begun.append(run.cell.method)
        if run.cell.method == "dense":
            assert waits.wait(20)
            raise KeyboardInterrupt
        waits.set()
        try:
            for step in range(2000):  # a run that nobody stops would fail here after 20 seconds
                place.progress(step, 2000)
                time.sleep(0.01)
        except Stopped:
            ended.append(run.cell.method)
            raise
        raise AssertionError("it was never stopped")

    store = Store(tmp_path / "records")
    place = replace(run_context(tmp_path / "work"), jobs=2)
    with pytest.raises(KeyboardInterrupt):
        carry_out_plan(make_plan([experiment], "smoke", store), store, place, silent(), execute)
    assert ended == ["ecospa"]
    assert set(begun) == {"dense", "ecospa"}
    assert store.records(status=None) == []


def test_what_runs_share_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def slowly(partial: Path) -> None:
        made.append(partial)
        time.sleep(0.2)
        partial.write_text("whole")

    path = tmp_path / "shared" / "tokens.txt"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: make_once(path, slowly), range(4)))
    assert path.read_text() == "whole"
    assert len(made) == 1 and made[0].suffix == ".txt"


def test_a_half_made_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"

    def breaking(partial: Path) -> None:
        partial.write_text("half")
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError):
        make_once(path, breaking)
    assert not path.exists()
    make_once(path, lambda partial: partial.write_text("whole"))
    assert path.read_text() == "whole"


@pytest.mark.parametrize("name", ["threads", "jobs"])
def test_a_senseless_number_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        commands.run(replace(commands.Run(names=("mismatch_error",), dry_run=True), **{name: 0}), silent())
