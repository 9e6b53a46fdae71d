"""Many runs: what is there is skipped, what fails is told, what is interrupted goes on."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.execution import campaign, isolation
from benchmarks.execution.campaign import carry_out_plan, clear_finished, last_line
from benchmarks.execution.plan import make_plan
from benchmarks.experiment import Cell, MethodRef, Run
from results.record import RunRecord
from results.store import Store
from tests.benchmarks.tiny_runs import (
    HERE,
    ORIGIN,
    Interrupting,
    carry_out,
    run_context,
    settings,
    tiny_experiment,
    train,
    use_tiny_experiment,
    use_tiny_text,
)

FAILING, INTERRUPTING, REFUSING = (f"{HERE}:{name}" for name in ("Failing", "Interrupting", "Refusing"))


@pytest.fixture(autouse=True)
def fixed_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign.provenance, "commit", lambda: ORIGIN)


def refs(*names: str) -> tuple[MethodRef, ...]:
    return tuple(MethodRef.parse(name) for name in names)


def silent() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_a_failed_run_is_recorded_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    experiment = tiny_experiment((), execute=train)
    use_tiny_experiment(monkeypatch, experiment)
    store = Store(tmp_path / "records")
    plan = make_plan([experiment], "smoke", store, refs(FAILING, "dense"))
    summary = carry_out_plan(plan, store, run_context(tmp_path / "work"), silent(), carry_out)
    assert [record.method for record in summary.finished] == ["dense"]
    (failed,) = store.records(status="failed")
    assert failed.method == "Failing"
    assert last_line(failed) == "RuntimeError: the third step is one too many"
    assert "Traceback" in (failed.error or "")
    assert failed.commit == ORIGIN[0]
    (finished,) = store.records()
    assert finished.metrics["perplexity"].value > 1
    assert finished.data_fingerprint and finished.device["threads"] == 1 and "torch" in finished.versions
    assert finished.command == "python -m benchmarks run tiny --tier smoke --methods dense --seeds 0"
    again = make_plan([experiment], "smoke", store, refs(FAILING, "dense"))
    assert [planned.run.cell.method for planned in again.in_state("pending")] == ["Failing"]
    assert not list((tmp_path / "work").glob(f"{finished.config_hash}*"))  # nothing left of a finished run


@pytest.mark.parametrize(("method", "kept"), [("dense", True), (FAILING, False)])
def test_what_a_kill_left_of_a_run_is_removed_when_its_record_is_there(
    method: str, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny_experiment(())
    use_tiny_experiment(monkeypatch, experiment)
    store, work, append = Store(tmp_path / "records"), tmp_path / "work", Store.append
    plan = make_plan([experiment], "smoke", store, refs(method))
    left = work / plan.runs[0].run.folder_name / "checkpoint-3"
    left.mkdir(parents=True)

    def killed(own: Store, record: RunRecord) -> Path:
        append(own, record)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        carry_out_plan(plan, store, run_context(work), silent(), carry_out)
    assert left.exists() == kept  # of a run that has failed it goes first: nobody is to go on from there
    clear_finished(make_plan([experiment], "smoke", store, refs(method)), work)
    assert not left.exists()


def test_work_that_is_half_removed_is_nothing_to_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny_experiment(())
    use_tiny_experiment(monkeypatch, experiment)
    store, work = Store(tmp_path / "records"), tmp_path / "work"
    plan = make_plan([experiment], "smoke", store, refs(FAILING))
    own = work / plan.runs[0].run.folder_name
    own.mkdir(parents=True)
    remove = shutil.rmtree

    def killed(place: Path, ignore_errors: bool) -> None:
        if place.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        carry_out_plan(plan, store, run_context(work), silent(), carry_out)
    assert not own.exists() and list(work.iterdir()) != []
    monkeypatch.setattr(shutil, "rmtree", remove)
    carry_out_plan(plan, store, run_context(work), silent(), carry_out)
    assert list(work.iterdir()) == []


def test_a_refusal_is_an_outcome_and_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    experiment = tiny_experiment((), execute=train)
    use_tiny_experiment(monkeypatch, experiment)
    store, console = Store(tmp_path / "records"), silent()
    plan = make_plan([experiment], "smoke", store, refs(REFUSING, "dense"))
    summary = carry_out_plan(plan, store, run_context(tmp_path / "work"), console, carry_out)
    assert [record.method for record in summary.refused] == ["Refusing"] and summary.failed == ()
    (refused,) = store.records(status="failed")
    assert last_line(refused).endswith("refusing is not defined for the gpt2 family; it is for: bert")
    again = make_plan([experiment], "smoke", store, refs(REFUSING, "dense"))
    assert again.in_state("pending") == () and len(again.in_state("done")) == 2


def test_an_interrupt_keeps_what_is_finished_and_the_next_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny_text(monkeypatch)
    monkeypatch.setattr(Interrupting, "armed", True)
    experiment = tiny_experiment((), execute=train)
    use_tiny_experiment(monkeypatch, experiment)
    store, place = Store(tmp_path / "records"), run_context(tmp_path / "work")
    plan = make_plan([experiment], "smoke", store, refs("dense", INTERRUPTING))
    with pytest.raises(KeyboardInterrupt):
        carry_out_plan(plan, store, place, silent(), carry_out)
    assert [record.method for record in store.records(status=None)] == ["dense"]
    plan = make_plan([experiment], "smoke", store, refs("dense", INTERRUPTING))
    assert [planned.run.cell.method for planned in plan.in_state("done")] == ["dense"]
    carry_out_plan(plan, store, place, silent(), carry_out)
    assert {record.method for record in store.records()} == {"dense", "Interrupting"}
    assert make_plan([experiment], "smoke", store, refs("dense", INTERRUPTING)).in_state("pending") == ()


def test_the_plan_knows_seeds_methods_force_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny_experiment(("dense", "ecospa"), seeds=(0, 1))
    use_tiny_experiment(monkeypatch, experiment)
    store = Store(tmp_path)
    plan = make_plan([experiment], "smoke", store)
    assert [(p.run.cell.method, p.run.seed) for p in plan.runs] == [
        ("dense", 0), ("ecospa", 0), ("dense", 1), ("ecospa", 1),
    ]  # fmt: skip
    assert plan.seconds is None
    few = make_plan([experiment], "smoke", store, refs("dense"), seeds=(1,))
    carry_out_plan(few, store, run_context(tmp_path / "work"), silent(), carry_out)
    plan = make_plan([experiment], "smoke", store)
    assert [planned.state for planned in plan.runs] == ["pending", "pending", "done", "pending"]
    assert plan.seconds == pytest.approx(3 * store.records()[0].seconds)
    assert len(make_plan([experiment], "smoke", store, force=True).in_state("pending")) == 4
    assert make_plan([experiment], "cpu", store).absent == (("tiny", "it is a test"),)


class Fatal:
    """Settings that end the process that receives them, as a crash would."""

    method = MethodRef("dense")

    def to_config(self) -> dict[str, int]:
        return {"fatal": 1}

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (7,)


def test_a_process_that_dies_is_a_failed_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    monkeypatch.setattr(isolation, "_context", lambda tier: multiprocessing.get_context("spawn"))
    run = Run(Cell("tiny", "smoke", "dense", Fatal()), 0)
    record = isolation.run_in_subprocess(run, run_context(tmp_path), ORIGIN)
    assert record.status == "failed"
    assert "exit code 7" in (record.error or "")


def test_the_settings_survive_the_way_to_another_process() -> None:
    import pickle

    run = Run(Cell("tiny", "smoke", "dense", settings()), 0)
    assert pickle.loads(pickle.dumps(run)) == run
