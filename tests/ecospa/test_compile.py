"""torch.compile survives shrinking: one compilation per graph and event, compiled to the end, the losses of eager."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

EVENTS = 10


def trained(case):
    """Losses of a compiled and an ordinary run; per step compilations, runs of compiled graphs, events that followed.

    In a process of its own: torch would compile the wrappers by which the tests check tensor shapes.
    """
    program = Path(__file__).with_name("compiled_runs.py")
    done = subprocess.run([sys.executable, program, case], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(event for _, _, event in found["steps"]) >= EVENTS
    assert found["losses"] == pytest.approx(found["expected"], rel=1e-9)
    return found["steps"]


def check(steps):
    """No compilation but after an event, at most one per graph then, and all graphs run at every step."""
    graphs, runs, _ = steps[0]
    assert graphs >= 1 and runs >= graphs
    for (_, _, event), (compilations, ran, _) in itertools.pairwise(steps):
        assert compilations <= (graphs if event else 0), "compiled again without an event, or more than once for it"
        assert ran == runs, "a part of the model runs uncompiled"


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=pytest.mark.slow) for name in ("batches of changing size", "gpt2", "llama")]
)
def test_an_event_costs_one_compilation_of_every_graph(case):
    check(trained(case))


@pytest.mark.slow
def test_without_a_reset_the_model_would_run_uncompiled():
    """The control: torch gives up after eight shapes, and the check sees it."""
    with pytest.raises(AssertionError, match="runs uncompiled"):
        check(trained("no reset"))
