"""Multiples by kind of pair: the smallest size is the library's, and a plan tells what cannot be reached."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ecospa
from baselines.method import Budget
from benchmarks import registry
from benchmarks.execution import requirements
from benchmarks.execution.plan import make_plan
from benchmarks.experiment import Cell, MethodRef
from benchmarks.experiments import training_speed
from benchmarks.models.synthetic import build
from benchmarks.procedures.training_memory import config
from benchmarks.specs.multiples import Multiples, WidthMultiple, by_kind, hidden_width, shown, smallest_share
from benchmarks.specs.synthetic import ModelShape, SpeedProtocol, TrainingSpeedSettings
from benchmarks.timing.candidates import candidates
from ecospa.pairs import PairKind
from results.store import Store

SHAPES = (
    ModelShape("gpt2", layers=2, width=128, heads=2, length=16),
    ModelShape("llama", layers=2, width=128, heads=2, length=16, hidden=341),
    ModelShape("llama_grouped", layers=2, width=128, heads=2, length=16),
    ModelShape("bert", layers=2, width=128, heads=2, length=16),
    ModelShape("vit", layers=2, width=128, heads=2, length=8),
)
DEVICE_RULE = Multiples(qk=16, vo=16, ffn=64)


def refused(shape: ModelShape, multiple: WidthMultiple) -> float:
    """Smallest reachable share that the library names."""
    with torch.device("meta"):
        model = build(shape)
    rule = ecospa.WidthRule(**asdict(by_kind(multiple)))
    wanted = ecospa.EcoSpaConfig(target_size=0.001, target_scope="blocks", width_multiple=rule)
    with pytest.raises(ecospa.ConfigError) as error:
        ecospa.CoupledSparsifier(model, wanted)
    found = re.search(r"smallest reachable value is (\d\.\d+)", str(error.value))
    assert found is not None, error.value
    return float(found.group(1))


@pytest.mark.parametrize("multiple", [64, 16, 7, DEVICE_RULE])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_smallest_share_is_the_one_that_the_library_names(shape: ModelShape, multiple: WidthMultiple) -> None:
    assert smallest_share(shape, multiple) == pytest.approx(refused(shape, multiple), abs=1.01e-4)


def test_thirty_percent_of_galores_llama_needs_finer_heads_than_64() -> None:
    llama = training_speed.MODELS["gpu"][0]
    assert hidden_width(llama) == 5461
    assert smallest_share(llama, 64) == pytest.approx(0.3412, abs=1e-4)  # as the first records of tier gpu say
    assert smallest_share(llama, DEVICE_RULE) < 0.1
    assert shown(DEVICE_RULE) == "multiples of 16 (heads) and 64 (feed-forward)"


def cell(target: float, multiple: WidthMultiple, method: str = "ecospa") -> Cell:
    shape = ModelShape("llama", layers=2, width=128, heads=2, length=16, hidden=341)
    protocol = SpeedProtocol("training", 2, 16, 2, width_multiple=multiple)
    return Cell("training_speed", "cpu", method, TrainingSpeedSettings(MethodRef(method), target, shape, protocol))


def test_a_plan_tells_a_target_that_is_out_of_reach(tmp_path: Path) -> None:
    cells = (cell(0.3, 64), cell(0.3, DEVICE_RULE), cell(0.5, 64), cell(0.3, 64, "magnitude_one_shot"))
    experiment = replace(registry.experiment("training_speed"), cells=lambda tier, methods: cells)
    plan = make_plan([experiment], "cpu", Store(tmp_path), seeds=(0,))
    assert [planned.state for planned in plan.runs] == ["unavailable", "pending", "pending", "pending"]
    reason = plan.runs[0].reason
    assert reason is not None and "target 0.3 is out of reach: with widths that are multiples of 64" in reason


@pytest.mark.parametrize("name", ["training_speed", "inference_speed", "training_memory"])
def test_every_size_of_every_tier_can_be_reached(name: str) -> None:
    experiment = registry.experiment(name)
    for tier in experiment.tiers:
        found = experiment.cells(tier, tuple(MethodRef(method) for method in experiment.methods))
        assert [one.label for one in found if requirements.unreachable(one)] == []


@pytest.mark.parametrize("method", ["ecospa", "ecospa_tied", "small_dense"])
def test_widths_are_multiples_by_kind(method: str) -> None:
    rule = Multiples(qk=16, vo=8, ffn=32)
    settings = cell(0.5, rule, method).settings
    widths = {pair.kind: set[int]() for pair in ecospa.coupled_pairs(candidates(settings, 0).dense)}
    for pair in ecospa.coupled_pairs(candidates(settings, 0).shrunk):
        widths[pair.kind].add(pair.width)
    dense = {PairKind.QK: 64, PairKind.VO: 64, PairKind.FFN: 341}
    wanted = {PairKind.QK: 16, PairKind.VO: 16 if method == "ecospa_tied" else 8, PairKind.FFN: 32}
    for kind, found in widths.items():
        assert all(width % wanted[kind] == 0 or width == dense[kind] for width in found), (kind, found)
    assert any(found != {dense[kind]} for kind, found in widths.items())


def test_the_aligned_dense_model_is_built_without_a_target() -> None:
    settings = replace(cell(0.5, DEVICE_RULE, "dense_aligned").settings, target=None)
    found = candidates(settings, 0)
    assert {p.width for p in ecospa.coupled_pairs(found.shrunk) if p.kind is PairKind.FFN} == {384}
    assert {p.width for p in ecospa.coupled_pairs(found.dense) if p.kind is PairKind.FFN} == {341}


def test_a_budget_and_a_memory_run_take_multiples_by_kind() -> None:
    budget: Any = Budget(0.5, 10, 0, 10, 1, width_multiple=asdict(DEVICE_RULE))
    assert budget.rule == ecospa.WidthRule(16, 16, 64) and Budget(0.5, 10, 0, 10, 1).rule.ffn == 8
    memory = registry.experiment("training_memory").cells("gpu", (MethodRef("ecospa"),))[0]
    made = config(memory.settings)
    assert made is not None and made.width_multiple == ecospa.WidthRule(16, 16, 64)
