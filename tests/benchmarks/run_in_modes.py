"""Lets tiny models write in every mode and prints the tokens, and the metrics of compiled runs, as JSON.

Run as a process of its own: the tests' check of tensor shapes wraps the functions of `ecospa`, and torch would have to
compile the wrappers.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

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


def written(name: str, batch: int, device: str) -> dict[str, dict[str, Any]]:
    """All tokens of all turns, by what was done to the model and then by mode, in float32."""
    cell = mode_cell(name, "plain").settings
    protocol = replace(cell.protocol, batch=batch, device=device)
    settings = replace(cell, protocol=protocol, model=replace(cell.model, layers=2, hidden=43))
    given = [{"input_ids": each["input_ids"]} for each in batches(settings, 3, 0)]
    padded = replace(settings, method=MethodRef("dense_aligned"), target=None)
    made = candidates(settings, 0)
    models = {
        **{"dense": made.dense, "swapped": made.swapped, "cut": made.shrunk},
        "padded": candidates(padded, 0).shrunk,
    }

    def tokens(model: torch.nn.Module, mode: InferenceMode) -> list[Any]:
        timed: Any = inference.decode(model, given, settings.protocol, mode)
        return [(timed.ready(turn), timed.work(turn).tolist())[1] for turn in range(len(given))]

    modes: tuple[InferenceMode, ...] = ("plain", "static", "compiled")
    found = {kind: {mode: tokens(model, mode) for mode in modes} for kind, model in models.items()}
    ecospa.merge_projections(models["cut"])
    found["cut"]["merged"] = tokens(models["cut"], "merged")
    return found


def main(folder: str, device: str) -> None:
    """Infer and train without a C++ compiler: on a CPU what torch traces is run as it is, on a GPU as a CUDA graph."""
    if device == "cpu":
        compilation.BACKEND = "aot_eager"
    names = ("gpt2", "llama", "llama_grouped")
    tokens = {f"{name}, {batch} at a time": written(name, batch, device) for name in names for batch in (1, 16)}
    if device != "cpu":
        print(json.dumps({"tokens": tokens}))
        return
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
