"""Lets tiny models write in every mode and prints the tokens, and the metrics of compiled runs, as JSON.

Run as a process of its own: the tests' check of tensor shapes wraps the functions of `ecospa`, and torch would have to
compile the wrappers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ecospa
from benchmarks.experiment import Cell, MethodRef, Run, RunContext
from benchmarks.experiments import inference_speed, training_speed
from benchmarks.specs.synthetic import (
    InferenceMode,
    InferenceSpeedSettings,
    ModelShape,
    SpeedProtocol,
    TrainingMode,
    TrainingSpeedSettings,
)
from benchmarks.timing import compilation, inference
from benchmarks.timing.candidates import batches, candidates


def mode_cell(name: str, mode: InferenceMode, phase: inference_speed.Phase = "decode") -> Cell:
    """A cell that is measured in seconds."""
    shape = ModelShape(name, layers=1, width=32, heads=2, length=32, vocabulary=64)
    protocol = SpeedProtocol(phase, 2, 8, 3, 4, generated=3 if phase == "decode" else 0, mode=mode)
    return Cell(
        inference_speed.NAME, "smoke", "ecospa", InferenceSpeedSettings(MethodRef("ecospa"), 0.5, shape, protocol)
    )


def training_cell(name: str, mode: TrainingMode) -> Cell:
    """A cell of a few training steps."""
    shape = ModelShape(name, layers=1, width=32, heads=2, length=32, vocabulary=64)
    protocol = SpeedProtocol("training", 2, 8, 3, 4, mode=mode)
    return Cell(
        training_speed.NAME, "smoke", "ecospa", TrainingSpeedSettings(MethodRef("ecospa"), 0.5, shape, protocol)
    )


def written(name: str) -> dict[str, Any]:
    """The last token of every sequence and turn, by mode."""
    settings = mode_cell(name, "plain").settings
    model = candidates(settings, 0).shrunk
    given = [{"input_ids": batch["input_ids"]} for batch in batches(settings, 4, 0)]

    def last(mode: InferenceMode) -> list[Any]:
        timed: Any = inference.decode(model, given, settings.protocol, mode)
        return [(timed.ready(turn), timed.work(turn).flatten().tolist())[1] for turn in range(len(given))]

    found = {mode: last(mode) for mode in ("plain", "static", "compiled")}
    ecospa.merge_projections(model)
    return found | {"merged": last("merged")}


def main(folder: str) -> None:
    """Infer and train without a C++ compiler: what torch traces is run as it is."""
    compilation.BACKEND = "aot_eager"
    tokens = {name: written(name) for name in ("gpt2", "llama")}
    place = RunContext(Path(folder), threads=1)
    outcomes = {
        "decode": inference_speed.EXPERIMENT.execute(Run(mode_cell("llama", "compiled"), 0), place),
        "prefill": inference_speed.EXPERIMENT.execute(Run(mode_cell("vit", "compiled", "prefill"), 0), place),
        "training": training_speed.EXPERIMENT.execute(Run(training_cell("llama", "compiled"), 0), place),
    }
    metrics = {
        phase: {name: found.value for name, found in outcome.metrics.items()} for phase, outcome in outcomes.items()
    }
    print(json.dumps({"tokens": tokens, "metrics": metrics}))


if __name__ == "__main__":
    main(*sys.argv[1:])
