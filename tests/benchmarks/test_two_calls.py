"""Two calls on one work folder: no run is made twice, who waits says for whom, and a dead call holds nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.execution.occupancy import FOLDER, occupied, occupied_if_free
from benchmarks.execution.provenance import ROOT
from results.store import Store
from tests.benchmarks.campaigns import members, wait_for

HOLDING = """
import sys, time
from pathlib import Path
from benchmarks.execution.occupancy import occupied
with occupied(Path(sys.argv[1]), sys.argv[2:], print):
    print("held", flush=True)
    time.sleep(3600)
"""


def hold(folder: Path, *names: str) -> subprocess.Popen[str]:
    """A process that holds parts of a work folder."""
    words = [sys.executable, "-c", HOLDING, str(folder), *names]
    made = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None and made.stdout.readline() == "held\n"
    return made


def test_who_waits_says_for_whom_and_a_killed_call_holds_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    holder = hold(tmp_path, "smoke-a", "smoke-b")

    def say(text: str) -> None:
        lines.append(text)
        if len(lines) == 1:
            holder.send_signal(signal.SIGKILL)

    try:
        with occupied_if_free(tmp_path, ["smoke-b"]) as ours:
            assert not ours
        with occupied(tmp_path, ["smoke-c", "cpu-a"], say), occupied_if_free(tmp_path, ["gpu-a"]) as ours:
            assert ours and lines == []  # other experiments, other tiers
        with occupied(tmp_path, ["smoke-b"], say):
            assert lines[1:] == ["smoke-b is free, going on"]
    finally:
        holder.kill()
        holder.communicate()
    assert re.match(
        rf"waiting for process {holder.pid} on \S+ \(since .* UTC: python -m benchmarks.*\), which runs", lines[0]
    )
    with occupied_if_free(tmp_path, ["smoke-a", "smoke-b"]) as ours:
        assert ours
    assert not list((tmp_path / FOLDER).glob("*.holder"))


@pytest.mark.parametrize("left", ["", "{", "[]", '{"pid": 1}', "\udc80"])
def test_what_a_dead_call_left_is_no_lock(left: str, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    for ending in ("lock", "holder"):
        (tmp_path / FOLDER / f"smoke-a.{ending}").write_bytes(left.encode(errors="surrogatepass"))
    lines: list[str] = []
    with occupied(tmp_path, ["smoke-a"], lines.append):
        assert lines == []


def test_a_work_folder_without_locks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(ValueError, match=r"work is .*cannot be locked \(.*\); choose another folder with --work"),
        occupied(tmp_path / "file", ["smoke-a"], print),
    ):
        raise AssertionError("it is no folder")


def call(folder: Path, output: str, *words: str, **more: str) -> subprocess.Popen[bytes]:
    """The command that users type, in a group of its own."""
    places = ["--records", str(folder / "records"), "--work", str(folder / "work"), "--jobs", "1"]
    with (folder / output).open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks", "run", "mismatch_error", *places, *words],
            cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **more},
        )  # fmt: skip


def test_two_calls_at_once_make_every_run_once(tmp_path: Path) -> None:
    calls = [call(tmp_path, name, "--seeds", "0") for name in ("first", "second")]
    assert [one.wait(600) for one in calls] == [0, 0]
    assert len(Store(tmp_path / "records").records(status=None)) == 1
    told = [(tmp_path / name).read_text() for name in ("first", "second")]
    waited = [text for text in told if "waiting for process" in text]
    # the second may also have begun when the first was through
    assert len(waited) <= 1 and sum("1 finished, 0 failed" in text for text in told) == 1
    if waited:
        assert "is free, going on" in waited[0] and "all 1 runs are done" in waited[0]


@pytest.mark.parametrize("module", ["benchmarks.execution.interrupts", "rich.console", "benchmarks.commands"])
def test_an_interrupt_of_the_first_second_is_no_traceback(module: str, tmp_path: Path) -> None:
    started = call(tmp_path, "output", PYTHONPROFILEIMPORTTIME="1")
    output = tmp_path / "output"
    wait_for(lambda: re.search(rf"\| +{re.escape(module)}\n", output.read_text()) is not None, "it imports nothing")
    time.sleep(0.005)  # the handler is set in the line after the import
    os.killpg(started.pid, signal.SIGINT)
    assert started.wait(60) == 130
    told = output.read_text()
    assert "the same command goes on from here" in told and "Traceback" not in told and "Error" not in told
    assert members(started.pid) == []
    assert not list((tmp_path).rglob("*.json")) and not list(tmp_path.rglob("*.part"))


def test_an_interrupt_while_runs_begin_ends_all_processes_without_a_traceback(tmp_path: Path) -> None:
    started = call(tmp_path, "output")
    wait_for(lambda: len(members(started.pid)) > 1, "no run begins")
    os.killpg(started.pid, signal.SIGINT)
    assert started.wait(120) == 130
    wait_for(lambda: not members(started.pid), "a process goes on although nobody waits for it")
    told = (tmp_path / "output").read_text()
    assert "the same command goes on from here" in told and "Traceback" not in told
    assert not list((tmp_path / "records").rglob("*.json")) and not list(tmp_path.rglob("*.part"))
