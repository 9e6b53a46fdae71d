"""Limits of this machine are reported before anything starts: memory, CUDA, the Hub; and a plan predicts its costs."""

from __future__ import annotations

import io
import sys
import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from rich.console import Console

from benchmarks import commands
from benchmarks.data import source
from benchmarks.data.sources import wikitext
from benchmarks.execution import provenance, requirements, terminal
from benchmarks.execution.plan import Plan, make_plan
from benchmarks.execution.requirements import gigabytes, needs_cuda, no_bfloat16, no_compiler, no_hub, too_small
from benchmarks.experiment import TIERS, Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.synthetic import InferenceMode, ModelShape, SpeedProtocol, SpeedSettings, TrainingMode
from results.store import Store
from tests.benchmarks.tiny_runs import settings, tiny_experiment
from tests.results.factory import make_record

GB = 10**9
SHAPE = ModelShape("gpt2", layers=1, width=8, heads=1, length=8)


class Bare:
    """Settings that say nothing about training."""

    method = MethodRef("dense")

    def to_config(self) -> dict[str, Any]:
        return {}


def cell(tier: Tier, device: str | None = None) -> Cell:
    own = settings()
    chosen: Any = Bare() if device is None else replace(own, training=replace(own.training, device=device))
    return Cell("tiny", tier, "dense", chosen)


def everywhere(**changes: Any) -> Experiment:
    """A tiny experiment in all tiers, on a GPU in the upper two."""
    tiers: dict[Tier, TierPlan] = {tier: TierPlan((0, 1), 0.001, "any") for tier in TIERS}

    def cells(tier: Tier, wanted: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
        device = "cuda" if tier in ("gpu", "paper") else "cpu"
        return tuple(replace(cell(tier, device), method=ref.name) for ref in wanted)

    return replace(tiny_experiment(("dense", "ecospa")), tiers=tiers, absent={}, cells=cells, **changes)


def told(plan: Plan, jobs: int = 1) -> str:
    console = Console(file=io.StringIO(), width=300)
    terminal.print_plan(plan, console, jobs)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "cuda_memory", lambda: ())
    monkeypatch.setattr(provenance, "memory", lambda: 24 * GB)


def test_training_says_whether_it_needs_cuda_and_else_the_tier_does() -> None:
    assert [needs_cuda(cell(tier)) for tier in TIERS] == [False, False, True, True]
    assert needs_cuda(cell("cpu", "cuda")) and not needs_cuda(cell("gpu", "cpu"))


def test_without_cuda_a_gpu_cell_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert too_small(cell("gpu"), None) == (
        "tier gpu needs a CUDA device and this machine has none; choose tier smoke or cpu"
    )
    assert too_small(cell("cpu"), None) is None
    monkeypatch.setattr(requirements, "cuda_memory", lambda: (80 * GB, 140 * GB))
    assert too_small(cell("gpu"), 100 * GB) is None
    assert too_small(cell("gpu"), 150 * GB) == (
        "an earlier run needed 150 GB of memory and its GPU has 140 GB; use a larger one"
    )


def test_a_cell_that_needed_more_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert too_small(cell("cpu"), 24 * GB) is None
    assert too_small(cell("cpu"), 25 * GB) == (
        "an earlier run needed 25 GB of memory and this machine has 24 GB; use a larger one"
    )
    monkeypatch.setattr(provenance, "memory", lambda: 0)  # a system that does not tell
    assert too_small(cell("cpu"), 25 * GB) is None


def test_without_a_compiler_a_compiled_cell_is_missing_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def cells(mode: InferenceMode) -> Cell:
        protocol = SpeedProtocol("decode", 1, 8, 3, mode=mode)
        return Cell("tiny", "cpu", "dense", SpeedSettings(MethodRef("dense"), None, SHAPE, protocol))

    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = (
        "compiled steps need a C++ compiler and no-such-compiler is not on the PATH; install it, or name another in CXX"
    )
    assert no_compiler(cells("compiled")) == reason
    assert no_compiler(cells("static")) is None and no_compiler(cell("cpu")) is None
    monkeypatch.setenv("CXX", sys.executable)
    assert no_compiler(cells("compiled")) is None


def test_mixed_precision_waits_for_a_cpu_that_multiplies_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(mode: TrainingMode, device: Literal["cpu", "cuda"] = "cpu") -> Cell:
        protocol = SpeedProtocol("training", 1, 8, 3, device=device, mode=mode)
        return Cell("tiny", "cpu", "dense", SpeedSettings(MethodRef("dense"), None, SHAPE, protocol))

    monkeypatch.setattr(provenance, "processor_field", lambda name: "sse2 avx2")
    reason = no_bfloat16(trained("autocast"))
    assert reason is not None and "AVX-512" in reason and reason.endswith("run it on another machine")
    assert no_bfloat16(trained("autocast", "cuda")) is None
    assert no_bfloat16(trained("fused")) is None and no_bfloat16(cell("cpu")) is None
    for able in ("avx2 avx512bw", ""):  # nothing is known of a CPU that tells nothing
        monkeypatch.setattr(provenance, "processor_field", lambda name, able=able: able)
        assert no_bfloat16(trained("autocast")) is None


def test_the_driver_is_asked_without_torch() -> None:
    found = requirements.cuda_memory.__wrapped__() if hasattr(requirements.cuda_memory, "__wrapped__") else ()
    assert isinstance(found, tuple) and all(size > 0 for size in found)
    assert provenance.memory() > 0
    assert [gigabytes(8.1e8), gigabytes(1.41e11)] == ["0.8 GB", "141 GB"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Data come from the Hub, whose caches are empty; returns the folder of the caches."""
    for name in ("ECOSPA_DATA", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(requirements, "_hub_answers", lambda address: False)
    return tmp_path


def needed(name: str) -> tuple[source.BoundSource, ...]:
    return (source.find(name).bind("default"),)


def test_without_a_network_the_paper_tier_says_so(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = no_hub(needed("wikitext"), "paper")
    assert text is not None and text.startswith(f"{wikitext.HUB_ID} comes from the Hugging Face Hub, which does not")
    assert "point ECOSPA_DATA at a local mirror" in text
    assert no_hub(needed("wikitext"), "cpu") is None and no_hub(needed("docstrings"), "paper") is None
    monkeypatch.setattr(requirements, "_hub_answers", lambda address: True)
    assert no_hub(needed("wikitext"), "paper") is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set; unset it" in str(no_hub(needed("wikitext"), "paper"))


@pytest.mark.parametrize("cached", ["hub/datasets--Salesforce--wikitext", "datasets/Salesforce___wikitext"])
def test_what_was_loaded_before_needs_no_network(hub: Path, cached: str) -> None:
    (hub / cached).mkdir(parents=True)
    assert no_hub(needed("wikitext"), "paper") is None


def test_an_answer_of_any_kind_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"refused": OSError("refused"), "denied": urllib.error.HTTPError("", 403, "denied", {}, None)}  # type: ignore[arg-type]

    def open_it(request: Any, timeout: float) -> Any:
        raise answers[request.full_url.rpartition("/")[2]]

    monkeypatch.setattr(requirements.urllib.request, "urlopen", open_it)
    requirements._hub_answers.cache_clear()
    assert not requirements._hub_answers("https://hub/refused") and requirements._hub_answers("https://hub/denied")
    assert not requirements._hub_answers("no address")
    requirements._hub_answers.cache_clear()


def test_a_plan_gives_all_reasons_before_anything_starts(tmp_path: Path) -> None:
    absent = source.Source("absent", lambda *given: source.Corpus((), ()), str, lambda *given: "the data are not here")
    plan = make_plan([everywhere(sources=lambda tier: (absent.bind("x"),))], "paper", Store(tmp_path))
    assert {planned.state for planned in plan.runs} == {"unavailable"}
    text = told(plan)
    assert "0 done, 0 pending, 4 unavailable" in text
    reason = "the data are not here; and tier paper needs a CUDA device and this machine has none"
    assert f"4 runs cannot be made: {reason}" in text


def store_with(folder: Path, experiment: Experiment, peak: int, seconds: float) -> Store:
    """A store with the dense cell of seed 0."""
    (dense, _) = experiment.cells("cpu", (MethodRef("dense"), MethodRef("ecospa")))
    fields = {name: dense.config[name] for name in ("model", "data", "protocol", "training", "target")}
    record = make_record(
        1, {"peak_memory": float(peak)}, experiment="tiny", tier="cpu", method="dense", seconds=seconds, **fields
    )
    store = Store(folder)
    config = dense.config
    store.append(replace(record, config=config, config_hash=dense.config_hash))
    return store


def test_a_plan_predicts_time_and_memory_from_earlier_records(tmp_path: Path) -> None:
    experiment = everywhere()
    plan = make_plan([experiment], "cpu", store_with(tmp_path, experiment, 2 * GB, 120.0))
    assert [planned.state for planned in plan.runs] == ["done", "pending", "pending", "pending"]
    assert plan.seconds == 360.0 and plan.memory() == 2 * GB and plan.memory(jobs=2) == 4 * GB
    text = told(plan)
    assert "estimated time about 6 min, memory up to 2.0 GB" in text
    assert "estimated time about 3 min, 2 at a time, memory up to 4.0 GB, 2 at a time" in told(plan, jobs=2)
    assert "estimated time unknown, memory unknown" in told(make_plan([experiment], "cpu", Store(tmp_path / "none")))


def test_runs_that_are_too_large_together_are_told(tmp_path: Path) -> None:
    experiment = everywhere()
    plan = make_plan([experiment], "cpu", store_with(tmp_path, experiment, 20 * GB, 120.0))
    assert "40 GB" in told(plan, jobs=2) and "this machine has 24 GB: fewer at a time, --jobs 1" in told(plan, jobs=2)
    assert "fewer at a time" not in told(plan)


def test_only_the_same_cell_decides_that_a_run_is_too_large(tmp_path: Path) -> None:
    experiment = everywhere()
    plan = make_plan([experiment], "cpu", store_with(tmp_path, experiment, 25 * GB, 120.0))
    assert {(p.run.cell.method, p.run.seed): p.state for p in plan.runs} == {
        ("dense", 0): "done", ("ecospa", 0): "pending", ("dense", 1): "unavailable", ("ecospa", 1): "pending",
    }  # fmt: skip


def test_a_dry_run_tells_it_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.registry, "experiment", lambda name: everywhere())
    console = Console(file=io.StringIO(), width=200)
    options = commands.Run(tier="gpu", names=("tiny",), dry_run=True, records=tmp_path / "records")
    assert commands.run(options, console, execute=lambda *given: pytest.fail("it ran")) == 0
    assert isinstance(console.file, io.StringIO)
    assert "tier gpu needs a CUDA device" in console.file.getvalue()
    assert not list(tmp_path.iterdir())
