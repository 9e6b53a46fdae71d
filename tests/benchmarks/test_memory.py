"""Peak memory: of a run alone, not of what was prepared before it in the same process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import task
from benchmarks.metrics import memory
from benchmarks.training import loop
from tests.benchmarks.tiny_runs import run_context, run_of, use_tiny_text

LARGE = 400_000_000  # bytes, far more than a tiny run takes on top


def test_a_peak_can_be_forgotten() -> None:
    if not memory._CLEAR.exists():
        pytest.skip("only Linux forgets")
    peak_of_a_large_tensor()
    before = memory.peak_memory("cpu")
    memory.reset_peak("cpu")
    assert memory.peak_memory("cpu") < before - LARGE // 2


def test_on_a_gpu_its_own_counter_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: calls.append("reset"))
    memory.reset_peak("cuda")
    assert calls == ["reset"]


def test_without_the_files_of_linux_the_peak_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CLEAR", "_STATUS"):
        monkeypatch.setattr(memory, name, Path("/nowhere/at/all"))
    memory.reset_peak("cpu")
    assert memory.peak_memory("cpu") > 1e7


def test_a_run_does_not_count_its_preparations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not memory._CLEAR.exists():
        pytest.skip("only Linux forgets")
    use_tiny_text(monkeypatch)
    load = task.load

    def load_after_much(run, folder):
        peak_of_a_large_tensor()
        return load(run, folder)

    monkeypatch.setattr(task, "load", load_after_much)
    memory.reset_peak("cpu")
    before = memory.peak_memory("cpu")
    trained = loop.train(run_of(), run_context(tmp_path))
    assert trained.started.progress.peak_memory < before + LARGE // 2


def peak_of_a_large_tensor() -> None:
    """Take much memory and give it back."""
    torch.ones(LARGE, dtype=torch.uint8)
