"""kill -9 in the middle of `reproduce`: the next call goes on from the checkpoint and ends with the same numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.environment import ROOT
from results.record import RunRecord
from results.store import Store
from tests.benchmarks.killable import STEPS, TRACE
from tests.benchmarks.tiny_runs import HERE

FAILING = f"{HERE}:Failing"
TRACED, WHOLE = (f"tests.benchmarks.killable:{name}" for name in ("Traced", "TracedToo"))
MEASURED_BY_THE_CLOCK = {"training_seconds", "step_time", "final_step_time_ratio", "peak_memory"}
KILL_AT = 8  # steps
PATIENCE, SOON = 900.0, 60.0  # seconds, for machines that are busy

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="forks, and looks into /proc")


class Call:
    """The command with its records, its work and the trace of its steps below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace = folder / "trace"
        self.records = Store(folder / "records")
        self.output = folder / "output"
        self.started: list[subprocess.Popen[bytes]] = []
        folder.mkdir(exist_ok=True)

    def start(self, only: str, *methods: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "tests.benchmarks.killable", "reproduce", "--only", only, "--methods", *methods]
        words += ["--records", str(self.records.folder), "--work", str(self.folder / "work"), "--jobs", "1"]
        environment = {**os.environ, TRACE: str(self.trace)}
        with self.output.open("wb") as output:  # no pipe: who reads one waits for all that hold its other end
            process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=output)
        self.started.append(process)
        return process

    def end(self) -> None:
        """Leave nothing running, whatever went wrong."""
        for process in self.started:
            process.kill()
            process.wait()
        for run in {run for run, _ in self.steps()}:
            if not gone(run):
                os.kill(run, signal.SIGKILL)

    def steps(self) -> list[tuple[int, int]]:
        """(process, step) of every step so far."""
        text = self.trace.read_text() if self.trace.exists() else ""
        return [(int(process), int(step)) for process, step in (line.split() for line in text.splitlines())]


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Callable[[str], Call]]:
    """Makes a Call in a folder of its own; what it started ends with the test."""
    made: list[Call] = []

    def make(name: str) -> Call:
        made.append(Call(tmp_path / name))
        return made[-1]

    yield make
    for call in made:
        call.end()


def wait_for(what: Callable[[], bool], why: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.02)


def gone(process: int) -> bool:
    """Whether a process has ended; one that nobody waits for stays as a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def numbers(record: RunRecord) -> dict[str, object]:
    """Everything of a record that no clock decides."""
    metrics = {name: metric.value for name, metric in record.metrics.items() if name not in MEASURED_BY_THE_CLOCK}
    parts = (record.loss_curve, record.plan_history, record.data_fingerprint)
    return {**metrics, **dict(zip(("curve", "history", "data"), parts, strict=True))}


def test_a_killed_call_goes_on_and_ends_with_the_same_numbers(calls: Callable[[str], Call]) -> None:
    call = calls("killed")
    methods = (FAILING, "dense", TRACED)
    first = call.start("tiny", *methods)
    wait_for(lambda: first.poll() is not None or any(step >= KILL_AT for _, step in call.steps()), "too slow")
    assert first.poll() is None, "the call ended before it could be killed"
    first.send_signal(signal.SIGKILL)
    first.wait()
    run = call.steps()[-1][0]
    wait_for(lambda: gone(run), "the run goes on although nobody waits for it", SOON)
    killed_at = call.steps()[-1][1]
    assert KILL_AT <= killed_at < STEPS
    (dense,) = call.records.records()
    assert dense.method == "dense"
    as_it_was = call.records.path(dense).read_bytes()

    second = call.start("tiny", *methods, WHOLE)
    assert second.wait(PATIENCE) == 1  # what failed was tried again, and failed again
    out = call.output.read_text()
    assert "1 there, 3 to do" in out and "2 finished, 1 failed" in out
    told = "FAILED tiny Failing target None seed 0: RuntimeError: the third step is one too many"
    assert out.index("2 finished, 1 failed") < out.index(told)
    again = [step for process, step in call.steps() if process != run]
    resumed_at, whole = again[0], list(range(1, STEPS + 1))
    assert 1 < resumed_at <= killed_at + 1 and again == [*range(resumed_at, STEPS + 1), *whole]
    assert call.records.path(dense).read_bytes() == as_it_was
    assert not list((call.folder / "work").glob("*/checkpoint-*"))

    (resumed,) = call.records.records(method="Traced")
    (uninterrupted,) = call.records.records(method="TracedToo")
    assert len(resumed.loss_curve) == STEPS and len(resumed.plan_history) > 2
    pairs = zip(numbers(resumed).items(), numbers(uninterrupted).values(), strict=True)
    assert [(name, one, other) for (name, one), other in pairs if one != other] == []


def test_a_run_that_says_nothing_ends_with_a_killed_call(calls: Callable[[str], Call]) -> None:
    call = calls("silent")
    parent = call.start("silent", "dense")
    wait_for(lambda: bool(call.steps()), "the run did not begin")
    (run,) = (process for process, _ in call.steps())
    assert not gone(run)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: gone(run), "the run goes on although nobody waits for it", SOON)
    assert call.records.records(status=None) == []
