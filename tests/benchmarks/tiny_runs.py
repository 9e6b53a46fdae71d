"""Runs small enough for tests: a two-layer GPT-2 on a few hundred words, and methods that misbehave on purpose."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pytest

from baselines.method import TrainingMethod, TrainingState
from benchmarks import registry
from benchmarks.data import source as sources
from benchmarks.execution import recording
from benchmarks.experiment import Cell, Experiment, MethodRef, Run, RunContext, RunResult, Tier, TierPlan
from benchmarks.procedures import training
from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.training import ShrinkSpec, TrainingSettings, TrainingSpec
from results.record import Metric

STEPS = 12
HERE = "tests.benchmarks.tiny_runs"
ORIGIN = ("0" * 40, False)
_WORDS = ("the model learns to cut its own weights while it trains on a small text about", "pairs", "widths", "heads")


class Interrupting(TrainingMethod):
    """Interrupts the first run after 7 steps, as Ctrl-C would, and lets the next one pass."""

    name: ClassVar[str] = "interrupting"
    armed: ClassVar[bool] = False

    def after_step(self, state: TrainingState) -> None:
        """Interrupt once."""
        super().after_step(state)
        if type(self).armed and state.step == 7:
            type(self).armed = False
            raise KeyboardInterrupt


class Failing(TrainingMethod):
    """Fails after 3 steps."""

    name: ClassVar[str] = "failing"

    def after_step(self, state: TrainingState) -> None:
        """Fail."""
        if state.step == 3:
            raise RuntimeError("the third step is one too many")


class Refusing(TrainingMethod):
    """Is for encoders only."""

    name: ClassVar[str] = "refusing"
    architectures: ClassVar[frozenset[str]] = frozenset({"bert"})


def corpus() -> sources.Corpus:
    """Sixty documents to train on and ten to evaluate on."""
    lines = [f"{_WORDS[0]} {_WORDS[1 + n % 3]} number {n % 7}. " * (2 + n % 3) for n in range(70)]
    return sources.Corpus(tuple(lines[:60]), tuple(lines[60:]))


def use_tiny_text(patch: pytest.MonkeyPatch) -> None:
    """Every source of data is the tiny text."""
    tiny = sources.Source(
        "tiny",
        load=lambda configuration, split, tier, train_bytes: corpus(),
        key=lambda configuration: "1",
        missing=lambda configuration, tier: None,
    )
    patch.setattr(sources, "find", lambda name: tiny)


def settings(method: str = "dense", target: float | None = None, steps: int = STEPS) -> TrainingSettings:
    """Settings of a run of a few seconds."""
    return TrainingSettings(
        method=MethodRef.parse(method),
        target=target,
        shrink=ShrinkSpec(target, steps, start_step=2, end_step=10, interval=2, width_multiple=2),
        model=ModelSpec(layers=2, width=32, heads=4, vocabulary=300, positions=16),
        data=DataSpec("tiny", "default"),
        protocol=ProtocolSpec("bpe-300", sequence_length=16, stride=15, split="validation"),
        training=TrainingSpec(steps=steps, batch_size=4, learning_rate=5e-3, micro_batch_size=4, warmup_steps=2),
    )


def run_of(method: str = "dense", target: float | None = None, seed: int = 0, steps: int = STEPS) -> Run:
    """A run of the tiny experiment."""
    chosen = settings(method, target, steps)
    return Run(Cell("tiny", "smoke", chosen.method.name, chosen), seed)


def run_context(folder: Path) -> RunContext:
    """One thread, and a checkpoint at every step."""
    return RunContext(folder, threads=1, checkpoint_seconds=0.0)


def instant(run: Run, place: RunContext) -> RunResult:
    """An outcome without any work; methods named `failing` and `interrupting` do as they are called."""
    if run.cell.method.lower() == "failing":
        raise RuntimeError("it was to fail")
    if run.cell.method.lower() == "interrupting" and Interrupting.armed:
        Interrupting.armed = False
        raise KeyboardInterrupt
    place.progress(1, 1)
    return RunResult({"perplexity": Metric(float(run.seed + 2), "per token", False)}, "0" * 64)


def tiny_experiment(methods: tuple[str, ...], execute: object = instant, seeds: tuple[int, ...] = (0,)) -> Experiment:
    """An experiment with one cell per method, in the smoke tier only."""

    def cells(tier: Tier, wanted: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
        return tuple(Cell("tiny", tier, ref.name, settings(ref.location or ref.name)) for ref in wanted)

    return Experiment(
        name="tiny",
        question="does it work",
        tiers={"smoke": TierPlan(seeds, 0.001, "any")},
        methods=methods,
        cells=cells,
        sources=lambda tier: (),
        execute=execute,  # type: ignore[arg-type]
        absent={"cpu": "it is a test"},
    )


def use_tiny_experiment(patch: pytest.MonkeyPatch, experiment: Experiment) -> None:
    """The registry holds nothing else, and runs stay in this process."""
    patch.setattr(registry, "experiments", lambda: MappingProxyType({experiment.name: experiment}))


carry_out = recording.carry_out
train = training.execute
