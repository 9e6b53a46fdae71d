"""The process of a run: what it sets up before the run begins."""

import signal
from types import SimpleNamespace

import pytest
import torch

from benchmarks.execution import worker
from benchmarks.experiment import RunContext


@pytest.fixture
def own_settings():
    """Signals and the processor's mode as they were, whatever a test does to this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    torch.set_flush_denormal(False)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_numbers_too_small_for_the_processor_are_zero_in_a_run(monkeypatch, tmp_path, own_settings):
    """They make Adam three times slower on masked weights, and masks look slow that are not."""
    seen = []

    def carry_out(run, run_context, origin):
        seen.append(float(torch.full((64,), 1e-30).mul_(1e-10).abs().max()))
        return SimpleNamespace(to_json=lambda: "{}")

    monkeypatch.setattr(worker, "carry_out", carry_out)
    sent = []
    connection = SimpleNamespace(send=sent.append, close=lambda: None)
    assert float(torch.full((64,), 1e-30).mul_(1e-10).abs().max()) > 0
    worker.work(connection, None, RunContext(tmp_path, threads=1), ("0" * 40, False))
    assert seen == [0.0] and sent == [("record", "{}")]
