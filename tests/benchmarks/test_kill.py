"""kill -9 at any moment of `reproduce`: the next call goes on from there, and all ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from paper_tables.report.render import rendered
from results.archive import import_records
from results.store import Store
from tests.benchmarks import moments
from tests.benchmarks.campaigns import (
    PATIENCE,
    Campaign,
    Command,
    Server,
    Started,
    between_records,
    draw,
    members,
    tables,
    wait_for,
)
from tests.benchmarks.killable import METHODS, NAME, SEEDS, STEP_SECONDS, STEPS

KILLS, RUNS = 20, len(METHODS) * len(SEEDS)
FEW = 2  # of the ordinary run; that of the marker has all
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="forks, and looks into /proc")

Make = Callable[..., Campaign]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def make(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes campaigns; what they started ends with the tests."""
    made: list[Campaign] = []

    def one(name: str, only: str = NAME, jobs: int = 1, more: Sequence[str] = ()) -> Campaign:
        words = ["reproduce", "--only", only, "--jobs", str(jobs), *more]
        made.append(Campaign(tmp_path_factory.mktemp("kill") / name, server.start, words, moments.STEP))
        return made[-1]

    yield one
    for campaign in made:
        campaign.close()


@pytest.fixture(scope="module")
def undisturbed(make: Make) -> Campaign:
    """A campaign that nobody kills; its events are its whole life."""
    campaign = make("undisturbed")
    assert campaign.call() == 0
    return campaign


@pytest.fixture(scope="module")
def expected(undisturbed: Campaign, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Its tables and figures."""
    found = tables(undisturbed.records, tmp_path_factory.mktemp("expected"))
    assert {"coupled_vs_uncoupled.md", "controls.md", "pareto.svg", "report.html"} <= found.keys()
    return found


def steps_done(campaign: Campaign) -> int:
    """Optimizer steps that no later call has to take again."""
    return sum(STEPS if step < 0 else step for step in campaign.there().values())


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Names of files that are not the same."""
    return [name for name in found | expected if found.get(name) != expected.get(name)]


@pytest.mark.parametrize(
    ("kills", "jobs"), [(FEW, 2), *(pytest.param(KILLS, jobs, marks=pytest.mark.kill) for jobs in (1, 2))]
)
def test_kills_leave_no_trace(
    kills: int, jobs: int, make: Make, undisturbed: Campaign, expected: dict[str, bytes], tmp_path: Path
) -> None:
    campaign = make(f"{jobs}-killed-{kills}", jobs=jobs)
    drawn = draw(undisturbed.events, kills, seed=jobs, mark=moments.STEP, last=(RUNS - 1) * STEPS)
    for moment in drawn:
        left = max(0, moment.marks - steps_done(campaign))
        assert campaign.call(replace(moment, marks=left)) == -signal.SIGKILL
    there = len(campaign.records.records())
    assert campaign.call() == 0
    assert f"{there} done, {RUNS - there} pending" in campaign.output.read_text()
    assert len(campaign.records.records()) == RUNS
    assert not list(campaign.work.glob("*-[0-9]")), "unfinished work of finished runs stays for ever"
    assert differing(tables(campaign.records, tmp_path), expected) == []


@pytest.mark.kill
@pytest.mark.parametrize("jobs", [1, 2])
def test_twenty_kills_of_the_command_itself_leave_no_trace(jobs: int, tmp_path: Path) -> None:
    command = Command(tmp_path)
    words = ["reproduce", "--tier", "smoke", "--only", "mismatch_error", "gpt2_pretraining", "--jobs", str(jobs)]
    with closing(Campaign(tmp_path / "undisturbed", command.start, words, "os.link")) as undisturbed:
        assert undisturbed.call() == 0
    runs = len(undisturbed.records.records())
    with closing(Campaign(tmp_path / "killed", command.start, words, "os.link")) as campaign:
        for moment in between_records(runs, KILLS, seed=jobs):
            left = max(0, moment.marks - len(campaign.files()))
            assert campaign.call(replace(moment, marks=left)) == -signal.SIGKILL
            print(f"{len(campaign.files())} of {runs} records there after a kill at {moment}")
        assert campaign.call() == 0
    assert len(campaign.records.records()) == runs
    made = campaign.records.folder / "rendered" / "smoke"
    assert {path.name: path.read_bytes() for path in made.iterdir()} == rendered("smoke", campaign.records)
    expected = tables(undisturbed.records, tmp_path / "expected")
    assert {"mismatch_error.svg", "gpt2_pretraining.md", "report.html"} <= expected.keys()
    assert differing(tables(campaign.records, tmp_path / "found"), expected) == []


def test_a_run_that_is_cut_off_at_the_deadline_goes_on_with_the_same_command(server: Server, tmp_path: Path) -> None:
    slow = {STEP_SECONDS: "3"}
    packed, began = tmp_path / "records.zip", list[float]()
    words = ["reproduce", "--only", NAME, "--jobs", "1", "--pack", str(packed), "--minutes", "0.5"]

    def start(words: Sequence[str], variables: Mapping[str, str], output: Path) -> Started:
        started = server.start(words, {**variables, **slow}, output)
        began.append(time.monotonic())  # once the server has imported everything
        return started

    with closing(Campaign(tmp_path / "cut-off", start, words, moments.STEP)) as campaign:
        assert campaign.call() == 0
        assert time.monotonic() - began[0] < 30
        said = campaign.output.read_text()
        assert f"{RUNS} runs left out, 1 of them cut off" in said and campaign.records.records(status=None) == []
        (step,) = campaign.there().values()
        assert 0 < step < STEPS
        slow[STEP_SECONDS] = "0"
        campaign.words[campaign.words.index("0.5")] = "20"
        assert campaign.call() == 0  # which checks that every run goes on where its checkpoint is
    assert len(campaign.records.records()) == RUNS
    assert len(import_records(packed, Store(tmp_path / "here")).added) == RUNS


def test_a_run_that_says_nothing_ends_with_a_killed_call(make: Make) -> None:
    campaign = make("silent", only="silent")
    trace = campaign.folder / "trace"
    call = campaign.start(trace, None)
    wait_for(lambda: any(event.operation == moments.RUN for event in moments.events(trace)), "the run did not begin")
    assert len(members(call.pid)) == 2
    os.kill(call.pid, signal.SIGKILL)
    call.wait(PATIENCE)
    wait_for(lambda: not members(call.pid), "the run goes on although nobody waits for it")
    assert campaign.records.records(status=None) == []
