"""Speed and memory are measured on real models, interleaved; only ratios and bytes are looked at, no absolute time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import registry
from benchmarks.execution.plan import make_plan
from benchmarks.execution.provenance import ROOT
from benchmarks.experiment import MethodRef, Run, RunContext, RunResult
from benchmarks.experiments import inference_speed, training_memory, training_speed
from benchmarks.models.synthetic import build
from benchmarks.specs.synthetic import InferenceMode, ModelShape, TrainingMode
from benchmarks.timing import training_step
from benchmarks.timing.candidates import batches, candidates, swap_classes
from ecospa import ConfigError
from ecospa.attention import CoupledAttention
from results.store import Store
from tests.benchmarks.run_in_modes import mode_cell, training_cell

EXPERIMENTS = (training_speed, inference_speed, training_memory)


def outcomes(experiment: Any, tmp_path: Path) -> list[tuple[Any, RunResult]]:
    """Settings and results of the smoke tier, cell by cell."""
    made = registry.experiment(experiment.NAME)
    cells = made.cells("smoke", tuple(MethodRef(name) for name in made.methods))
    return [(cell.settings, made.execute(Run(cell, 0), RunContext(tmp_path, threads=1))) for cell in cells]


def test_a_training_step_is_compared_with_the_dense_model(tmp_path: Path) -> None:
    (settings, found), (tied_settings, tied) = outcomes(training_speed, tmp_path)
    assert (settings.method.name, tied_settings.method.name) == ("ecospa", "ecospa_tied")
    assert tied.metrics["block_share"].value == pytest.approx(tied_settings.target, abs=0.03)
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values["block_share"] == pytest.approx(settings.target, abs=0.02)
    assert values["step_flops_ratio"] < 0.8 and values["foretold_step_time_ratio"] < 1
    seconds = found.payload["seconds"]
    assert {len(own) for own in seconds.values()} == {settings.protocol.turns}
    over = values["step_time_ratio"] / values["step_flops_ratio"]
    assert values["step_time_over_flops"] == pytest.approx(over)
    assert values["estimator_share"] > 0 and values["event_steps"] > 0
    roofline = found.payload["roofline"]
    assert roofline["shrunk"]["flops"] < roofline["dense"]["flops"]
    assert roofline["shrunk"]["bytes"] < roofline["dense"]["bytes"]


def test_prefill_and_decode_are_timed_apart(tmp_path: Path) -> None:
    found = {settings.protocol.phase: outcome for settings, outcome in outcomes(inference_speed, tmp_path)}
    assert set(found) == {"prefill", "decode"}
    for phase, outcome in found.items():
        values = {name: metric.value for name, metric in outcome.metrics.items()}
        assert values["throughput_ratio"] > 0 and values["forward_flops_ratio"] < 0.8
        assert ("cache_bytes_ratio" in values) == (phase == "decode")
    assert found["decode"].metrics["cache_bytes_ratio"].value < 1


@pytest.mark.parametrize(("name", "mode"), [("llama", "merged"), ("gpt2", "static")])
def test_a_mode_is_that_of_both_models_and_is_told_apart(tmp_path: Path, name: str, mode: InferenceMode) -> None:
    found = inference_speed.EXPERIMENT.execute(Run(mode_cell(name, mode), 0), RunContext(tmp_path, threads=1))
    assert set(found.payload["seconds"]) == {"dense_plain", "plain", "dense", "shrunk"}
    names = set(found.metrics)
    assert found.metrics["mode_latency_ratio"].value > 0 and found.metrics["cache_bytes_ratio"].value < 1
    assert not names & {"swapped_latency_ratio", "compile_seconds"}


@pytest.mark.parametrize("mode", ["fused", "autocast"])
def test_a_mode_of_training_is_compared_with_both_models_without_it(tmp_path: Path, mode: TrainingMode) -> None:
    found = training_speed.EXPERIMENT.execute(Run(training_cell("gpt2", mode), 0), RunContext(tmp_path, threads=1))
    assert set(found.payload["seconds"]) == {"dense_plain", "plain", "dense", "shrunk"}
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values["mode_step_time_ratio"] > 0 and values["dense_mode_step_time_ratio"] > 0
    assert values["step_flops_ratio"] < 0.9 and values["block_share"] == pytest.approx(0.5, abs=0.1)
    assert not {"swapped_step_time_ratio", "foretold_step_time_ratio", "estimator_share", "compile_seconds"} & set(
        values
    )


def test_every_mode_of_training_does_what_it_is_named_after(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    dtypes: list[torch.dtype] = []

    class Recording(torch.optim.AdamW):
        def __init__(self, *args: Any, **options: Any) -> None:
            made.append(options)
            super().__init__(*args, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    settings = training_cell("gpt2", "plain").settings
    model, given = candidates(settings, 0).shrunk, batches(settings, 1, 0)
    next(m for m in model.modules() if type(m).__name__ == "Conv1D").register_forward_hook(
        lambda module, args, output: dtypes.append(output.dtype)
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for mode in ("plain", "fused", "autocast"):
        training_step.stepper(model, given, mode).work(0)
        assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
    assert [options["fused"] for options in made] == [None, True, None]
    assert dtypes == [torch.float32, torch.float32, torch.bfloat16]


def test_modes_of_training_are_measured_at_half_size_and_compiling_at_the_smallest() -> None:
    found = training_speed.cells("cpu", tuple(MethodRef(name) for name in training_speed.METHODS))
    other = [c for c in found if c.settings.protocol.mode != "plain"]
    points = [(0.5, "autocast"), (0.5, "compiled"), (0.5, "fused"), (0.3, "compiled")]
    assert {(c.method, c.settings.model.name, c.settings.target, c.settings.protocol.mode) for c in other} == {
        ("ecospa", name, *point) for name in ("gpt2", "llama") for point in points
    }
    on_gpu = training_speed.cells("gpu", (MethodRef("ecospa"),))
    narrow = {c.settings.protocol.mode: c.settings.protocol.precision for c in on_gpu}
    assert narrow == {"plain": "bf16", "fused": "bf16", "compiled": "bf16", "autocast": "fp32"}


def in_modes(folder: Path, device: str) -> dict[str, Any]:
    """Output of `run_in_modes`, whose tokens are those of every mode."""
    program = Path(__file__).with_name("run_in_modes.py")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CXX": sys.executable,
    }  # a program that is there: none is called
    done = subprocess.run(
        [sys.executable, program, folder, device], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    for models in found["tokens"].values():
        assert models["swapped"] == models["padded"] == models["dense"], "the same function by other classes or widths"
        for tokens in models.values():
            assert len({str(turn) for turn in tokens["plain"]}) > 1, "the same tokens everywhere would prove nothing"
            assert all(written == tokens["plain"] for written in tokens.values())
    return found


@pytest.mark.gpu
def test_a_cuda_graph_writes_what_an_eager_step_writes(tmp_path: Path) -> None:
    in_modes(tmp_path, "cuda")


@pytest.mark.slow
def test_every_mode_writes_the_same_and_compiling_is_timed_apart(tmp_path: Path) -> None:
    found = in_modes(tmp_path, "cpu")
    measured = found["metrics"]
    for phase, time in (("decode", "latency"), ("prefill", "latency"), ("training", "step_time")):
        metrics = measured[phase]
        assert metrics["compile_seconds"] > metrics[time] > 0 and metrics["dense_compile_seconds"] > 0
    assert measured["decode"]["swapped_latency_ratio"] > 0 and measured["decode"]["plain_latency"] > 0
    assert "swapped_latency_ratio" not in measured["prefill"]
    for phase in ("decode", "prefill"):
        metrics = measured[phase]
        assert metrics["mode_latency_ratio"] > 0 and metrics["dense_mode_latency_ratio"] > 0
        assert metrics["plain_latency_over_flops"] > 0
    metrics = measured["training"]
    assert metrics["mode_step_time_ratio"] > 0 and metrics["dense_mode_step_time_ratio"] > 0
    assert metrics["plain_step_time_over_flops"] > 0


def test_without_a_compiler_a_plan_leaves_compiled_steps_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    plan = make_plan([inference_speed.EXPERIMENT], "cpu", Store(tmp_path), [MethodRef("ecospa")], [0])
    reasons = {planned.run.cell.settings.protocol.mode: planned.reason for planned in plan.in_state("unavailable")}
    assert list(reasons) == ["compiled"] and "no-such-compiler is not on the PATH" in reasons["compiled"]


def test_the_plain_mode_leaves_earlier_records_what_they_were() -> None:
    plain, compiled = mode_cell("gpt2", "plain").config, mode_cell("gpt2", "compiled").config
    assert "mode" not in plain["protocol"]
    assert compiled["protocol"] == plain["protocol"] | {"mode": "compiled"}


def test_modes_are_measured_where_they_make_a_difference() -> None:
    found = inference_speed.cells("cpu", (MethodRef("ecospa"), MethodRef("low_rank")))
    modes = [(c.method, c.settings.model.name, c.settings.protocol.phase, c.settings.protocol.mode) for c in found]
    other = {mode for mode in modes if mode[-1] != "plain"}
    assert {method for method, *_ in other} == {"ecospa"}
    compiled_decode = {
        (c.settings.target, c.settings.protocol.batch)
        for c in found
        if (c.settings.protocol.phase, c.settings.protocol.mode) == ("decode", "compiled")
    }
    assert compiled_decode == {(0.5, 1), (0.5, 8), (0.5, 16), (0.3, 8)}
    assert {name for _, name, _, mode in other if mode == "merged"} == {"llama", "bert"}
    decode = {("gpt2", "decode"), ("llama", "decode")}
    assert {(name, phase) for _, name, phase, mode in other if mode == "static"} == decode
    compiled = {(name, phase) for _, name, phase, mode in other if mode == "compiled"}
    assert compiled == decode | {(name, "prefill") for name in ("gpt2", "llama", "bert", "vit")}
    assert all(c.settings.protocol.mode == "plain" for c in inference_speed.cells("smoke", (MethodRef("ecospa"),)))


@pytest.mark.parametrize("tier", ["cpu", "gpu"])
def test_the_aligned_dense_control_is_beside_every_model_and_phase(tier: Any) -> None:
    found = inference_speed.cells(tier, (MethodRef("dense_aligned"),))
    points = {(c.settings.model.name, c.settings.protocol.phase, c.settings.protocol.mode) for c in found}
    both = {(name, phase, "plain") for name in ("gpt2", "llama") for phase in ("prefill", "decode")}
    compiled = {(name, "decode", "compiled") for name in ("gpt2", "llama")}
    assert points == both | compiled | {("bert", "prefill", "plain"), ("vit", "prefill", "plain")}
    assert {c.settings.target for c in found} == {None}


def test_the_aligned_dense_control_is_padded_and_never_cut(tmp_path: Path) -> None:
    cell = mode_cell("llama", "plain")
    control = replace(cell.settings, method=MethodRef("dense_aligned"), target=None)
    control = replace(control, model=replace(control.model, hidden=43))
    found = inference_speed.EXPERIMENT.execute(Run(replace(cell, settings=control), 0), RunContext(tmp_path, threads=1))
    assert found.metrics["forward_flops_ratio"].value > 1 and found.metrics["cache_bytes_ratio"].value == 1


def test_long_texts_have_room_in_the_models_that_read_them() -> None:
    found = inference_speed.cells("cpu", (MethodRef("ecospa"), MethodRef("low_rank")))
    long = [cell for cell in found if cell.settings.protocol.sequence > 96]
    assert {cell.method for cell in long} == {"ecospa"}
    points = {(c.settings.model.name, c.settings.protocol.phase, c.settings.protocol.sequence) for c in long}
    generative = {
        (name, phase, n) for name in ("gpt2", "llama") for phase in ("prefill", "decode") for n in (512, 2048)
    }
    assert points == generative | {("bert", "prefill", n) for n in (512, 2048)}
    for cell in long:
        protocol = cell.settings.protocol
        assert cell.settings.model.length == protocol.sequence + protocol.generated


def test_bytes_are_those_predicted_and_a_budget_is_kept(tmp_path: Path) -> None:
    dense, shrunk, budgeted = (outcome for _, outcome in outcomes(training_memory, tmp_path))
    for outcome in (dense, shrunk, budgeted):
        values = {name: metric.value for name, metric in outcome.metrics.items()}
        assert values["foretold_training_bytes"] == pytest.approx(values["training_bytes"], rel=0.01)
        assert values["peak_memory"] >= values["steady_memory"] >= values["training_bytes"]
    assert dense.plan_history == () and len(shrunk.plan_history) > 2
    assert dense.metrics["peak_memory_ratio"].value == pytest.approx(1, abs=0.01)
    assert shrunk.metrics["steady_memory_ratio"].value < 0.9 < shrunk.metrics["peak_memory_ratio"].value
    assert budgeted.metrics["peak_memory"].value <= budgeted.metrics["memory_limit"].value
    parts = [row["micro_batch"] for row in budgeted.payload["steps"]]
    assert parts == sorted(parts) and parts[0] < parts[-1]


def test_memory_of_another_method_is_refused(tmp_path: Path) -> None:
    (cell,) = (c for c in training_memory.cells("smoke", (MethodRef("dense"),)) if c.settings.target is None)
    other = type(cell)(cell.experiment, cell.tier, "wanda", cell.settings)
    with pytest.raises(ConfigError, match="training_memory measures dense and ecospa"):
        training_memory.EXPERIMENT.execute(Run(other, 0), RunContext(tmp_path))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("tier", ["cpu", "gpu"])
def test_every_cell_is_another_one(experiment: Any, tier: Any) -> None:
    found = experiment.cells(tier, tuple(MethodRef(name) for name in experiment.METHODS))
    assert len({cell.config_hash for cell in found}) == len(found)
    assert {cell.settings.model.name for cell in found} == {"gpt2", "llama", "bert", "vit"}


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "vit"])
def test_a_swapped_model_is_the_same_function(name: str) -> None:
    torch.manual_seed(0)
    model = build(ModelShape(name, layers=2, width=32, heads=4, length=16, vocabulary=64)).double().eval()
    given = torch.randn(2, 3, 16, 16).double() if name == "vit" else torch.randint(1, 64, (2, 16))
    key = "x" if name == "vit" else "input_ids"

    def logits() -> torch.Tensor:
        result: Any = model(**{key: given})
        return result if name == "vit" else result.logits

    before = logits()
    swap_classes(model)
    assert any(isinstance(module, CoupledAttention) for module in model.modules())
    torch.testing.assert_close(logits(), before, rtol=0, atol=1e-12)
