"""The suite's own command over small experiments, for tests that kill it: a server that forks a process per call.

Everything is what a user runs, `reproduce` with a process per run, but for the size of the runs, a checkpoint at every
step, no tables at the end, and what is imported: once, here, and not at every start.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.context import ForkContext, ForkProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import benchmarks.execution.worker  # noqa: F401  imported before the fork, once for all runs
from benchmarks import commands, registry
from benchmarks.__main__ import main
from benchmarks.execution import isolation
from benchmarks.experiment import Cell, MethodRef, Run, RunContext, RunResult, Tier, TierPlan
from benchmarks.experiments import coupled_vs_uncoupled
from benchmarks.specs.training import TrainingSettings
from benchmarks.training.callback import MethodCallback
from tests.benchmarks import moments
from tests.benchmarks.tiny_runs import settings, tiny_experiment, train, use_tiny_text

NAME = coupled_vs_uncoupled.NAME
STEP_SECONDS = "ECOSPA_TEST_STEP_SECONDS"
"""Variable of a call whose every step takes so much longer."""
METHODS, SEEDS, STEPS = ("ecospa", "dense", "magnitude"), (0, 1), 12


class _Alone(ForkProcess):
    """A fork at a time: one that holds the ends of another's pipe would not see the parent go."""

    lock = threading.Lock()

    def start(self) -> None:
        with self.lock:
            super().start()


class _Apart(ForkContext):
    Process = _Alone  # type: ignore[assignment]


def train_and_tell(run: Run, place: RunContext) -> RunResult:
    """A training run that says which one it is."""
    moments.tell(moments.RUN, run.folder_name)
    return train(run, place)


def say_nothing(run: Run, place: RunContext) -> RunResult:
    """A run that reports no progress for longer than any test takes."""
    moments.tell(moments.RUN, run.folder_name)
    time.sleep(3600)
    return RunResult({}, "0" * 64)


def cells(tier: Tier, wanted: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """One cell per method; all but the dense one shrink."""

    def own(ref: MethodRef) -> TrainingSettings:
        return settings(ref.location or ref.name, None if ref.name == "dense" else 0.5, STEPS)

    return tuple(Cell(NAME, tier, ref.name, own(ref)) for ref in wanted)


def use_small_experiments(patch: pytest.MonkeyPatch) -> None:
    """The suite's first experiment trains tiny models, `silent` sleeps, and nothing else is there."""
    use_tiny_text(patch)
    small = replace(
        coupled_vs_uncoupled.EXPERIMENT,
        tiers={"smoke": TierPlan(SEEDS, 0.001, "any")},
        methods=METHODS,
        cells=cells,
        sources=lambda tier: (),
        execute=train_and_tell,
    )
    silent = replace(tiny_experiment(("dense",), execute=say_nothing), name="silent")
    own = silent.cells
    silent = replace(silent, cells=lambda tier, refs: tuple(replace(c, experiment="silent") for c in own(tier, refs)))
    patch.setattr(registry, "experiments", lambda: MappingProxyType({NAME: small, "silent": silent}))
    patch.setattr(isolation, "_context", lambda tier: _Apart())
    patch.setattr(commands, "RunContext", functools.partial(RunContext, checkpoint_seconds=0.0))
    patch.setattr(commands, "make_tables", lambda tier, records: 0)
    ended = MethodCallback.on_step_end

    def end_and_tell(self: MethodCallback, args: Any, state: Any, control: Any, **others: Any) -> Any:
        time.sleep(float(os.environ.get(STEP_SECONDS, "0")))
        found = ended(self, args, state, control, **others)
        moments.tell(moments.STEP, str(state.global_step))
        return found

    patch.setattr(MethodCallback, "on_step_end", end_and_tell)


def serve() -> None:
    """Fork a process for every line of the input, {"words", "variables", "output"}; write its id, then how it ended."""
    for line in sys.stdin:
        asked = json.loads(line)
        process = os.fork()
        if process == 0:
            os._exit(_obey(asked))
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _obey(asked: dict[str, Any]) -> int:
    os.setsid()
    output = Path(asked["output"]).open("w")  # noqa: SIM115  # as long as the process
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
    os.environ.update(asked["variables"])
    moments.begin()
    code = 1
    try:
        code = main(asked["words"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patched:
        use_small_experiments(patched)
        serve()
