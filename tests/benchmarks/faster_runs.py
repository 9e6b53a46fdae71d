"""Trains the tiny run eagerly and with compiled blocks, whole and interrupted, and prints what came of it, as JSON.

Run as a process of its own: the tests' check of tensor shapes wraps the functions of `ecospa`, and torch would have to
compile the wrappers.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.experiment import Run, RunResult
from benchmarks.specs.training import Throughput
from benchmarks.timing import compilation
from tests.benchmarks.tiny_runs import Interrupting, run_context, run_of, train, use_tiny_text

ALL = Throughput(compile_blocks=True, fused_optimizer=True, data_workers=1)


def faster(run: Run, throughput: Throughput | None) -> Run:
    """The run with other throughput settings."""
    settings = run.cell.settings
    training = replace(settings.training, throughput=throughput)
    return replace(run, cell=replace(run.cell, settings=replace(settings, training=training)))


def outcome(result: RunResult) -> dict[str, Any]:
    """Losses, widths and metrics of a run."""
    metrics = {name: metric.value for name, metric in result.metrics.items()}
    return {"losses": result.loss_curve, "widths": [event.widths for event in result.plan_history], "metrics": metrics}


def main(folder: str) -> None:
    """Train without a C++ compiler: what torch traces is run as it is."""
    compilation.BACKEND = "aot_eager"
    compiled = torch._dynamo.utils.counters
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_text(patch)
        place = Path(folder)
        found = {"eager": outcome(train(run_of("ecospa", 0.4), run_context(place / "eager")))}
        compiled.clear()
        found["compiled"] = outcome(train(faster(run_of("ecospa", 0.4), ALL), run_context(place / "whole")))
        found["graphs"] = {"unique": compiled["stats"]["unique_graphs"]}
        run = faster(run_of(f"{Interrupting.__module__}:Interrupting"), ALL)
        Interrupting.armed = True
        with pytest.raises(KeyboardInterrupt):
            train(run, run_context(place / "halves"))
        found["resumed"] = outcome(train(run, run_context(place / "halves")))
        found["uninterrupted"] = outcome(train(run, run_context(place / "once")))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
