"""Checkpoints by the clock: the wait begins when one has been written, and saving stays a small share of the time."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.experiment import RunContext
from benchmarks.training import callback, checkpoint
from tests.benchmarks.tiny_runs import settings


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.monotonic = self.perf_counter = self.time = lambda: self.now


def saves(folder: Path, patch: pytest.MonkeyPatch, took: float, every: float, until: float = math.inf) -> list[float]:
    """Seconds since the start at which checkpoints are asked for, with steps of one second."""
    clock = Clock()
    patch.setattr(callback, "time", clock)
    method = SimpleNamespace(after_step=lambda state: None, history=[])
    own = callback.MethodCallback(
        method,  # type: ignore[arg-type]
        settings().training,
        lambda model: 0,
        RunContext(folder, checkpoint_seconds=every, until=1000.0 + until),
        checkpoint.Progress(),
    )

    def save(*arguments: object) -> None:
        clock.now += took

    patch.setattr(checkpoint, "save", save)
    given: dict[str, Any] = {"model": torch.nn.Linear(1, 1), "optimizer": None}
    arguments: Any = SimpleNamespace(logging_steps=1, output_dir=str(folder))
    found = []
    for step in range(1, 1000):
        clock.now += 1.0
        state: Any = SimpleNamespace(global_step=step, max_steps=1000)
        control: Any = SimpleNamespace(should_save=False)
        own.on_step_end(arguments, state, control, **given)
        if control.should_save:
            found.append(clock.now - 1000.0)
            own.on_save(arguments, state, control, **given)
    return found


def test_a_quick_save_is_due_at_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert saves(tmp_path, monkeypatch, took=1.0, every=30.0)[:3] == [30.0, 61.0, 92.0]


def test_a_slow_save_is_rarer_and_is_not_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert saves(tmp_path, monkeypatch, took=40.0, every=30.0)[:2] == [30.0, 30.0 + 40.0 + 20 * 40.0]


def test_zero_saves_at_every_logged_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(saves(tmp_path, monkeypatch, took=40.0, every=0.0)) == 999


def test_a_last_one_is_written_shortly_before_the_run_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = saves(tmp_path, monkeypatch, took=2.0, every=30.0, until=50.0)
    assert found[0] == 30.0 and 40.0 <= found[1] <= 46.0, "no time is left to write it, or too much is lost"
    assert found[2] > 50.0, "it is asked for once"
