"""The suite's own command over two small experiments, for tests that kill it: `python -m tests.benchmarks.killable`.

Everything is what a user runs, `reproduce` with a process per run, but for the size of the runs, a checkpoint at every
step, and processes forked from this one, so that they know the small experiments.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pytest

import benchmarks.worker  # noqa: F401  imported before the fork, once for all runs
from baselines.coupled_sparsity import EcoSpa
from baselines.method import TrainingState
from benchmarks import commands, isolation, registry
from benchmarks.__main__ import main
from benchmarks.experiment import Cell, MethodRef, Outcome, Run, Tier, TrainingSettings, Workplace
from tests.benchmarks.tiny_runs import settings, tiny_experiment, train, use_tiny_text

STEPS = 24
TRACE = "ECOSPA_TEST_TRACE"


class Traced(EcoSpa):
    """EcoSpa that writes process and step into a file."""

    name: ClassVar[str] = "traced"

    def after_step(self, state: TrainingState) -> None:
        """Cut, and say so."""
        super().after_step(state)
        trace(state.step)


class TracedToo(Traced):
    """The same under another name: a run beside it that nobody kills."""

    name: ClassVar[str] = "traced_too"


def trace(step: int) -> None:
    """Append process and step to the file that the test reads."""
    with Path(os.environ[TRACE]).open("a") as file:
        file.write(f"{os.getpid()} {step}\n")


def say_nothing(run: Run, place: Workplace) -> Outcome:
    """A run that reports no progress for longer than any test takes."""
    trace(0)
    time.sleep(3600)
    return Outcome({}, "0" * 64)


def cells(tier: Tier, wanted: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """One cell per method; the traced ones shrink, and take longer."""

    def own(ref: MethodRef) -> TrainingSettings:
        text = ref.location or ref.name
        return settings(text, 0.5, STEPS) if ref.name.startswith("Traced") else settings(text)

    return tuple(Cell("tiny", tier, ref.name, own(ref)) for ref in wanted)


def use_small_experiments(patch: pytest.MonkeyPatch) -> None:
    """`tiny` trains, `silent` sleeps."""
    use_tiny_text(patch)
    tiny = replace(tiny_experiment(("dense",), execute=train), cells=cells)
    silent = replace(tiny_experiment(("dense",), execute=say_nothing), name="silent")
    own = silent.cells
    silent = replace(silent, cells=lambda tier, refs: tuple(replace(c, experiment="silent") for c in own(tier, refs)))
    patch.setattr(registry, "experiments", lambda: MappingProxyType({"tiny": tiny, "silent": silent}))
    patch.setattr(isolation, "_context", lambda tier: multiprocessing.get_context("fork"))
    patch.setattr(commands, "Workplace", functools.partial(Workplace, checkpoint_seconds=0.0))
    patch.setattr(commands, "make_tables", lambda tier, records: 0)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patched:
        use_small_experiments(patched)
        sys.exit(main(sys.argv[1:]))
