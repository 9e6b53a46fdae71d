"""Predicted cost of alignment against the first records of an H100, with the rates that they measured."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from torch import nn

import ecospa
import ecospa.trace
from baselines.dense_aligned import pad_feed_forward
from benchmarks.experiments import training_speed
from benchmarks.models.synthetic import build
from benchmarks.timing.candidates import WithLoss
from ecospa.pairs import PairKind
from ecospa.roofline import Device, known_device, step_seconds
from ecospa.trace import StepTrace, trace_step
from results import RunRecord, Store

H100 = known_device("h100", torch.bfloat16)
LLAMA = training_speed.MODELS["gpu"][0]
WITHIN = 0.10
"""The promise for a ratio of step times."""


def records(experiment: str, phase: str) -> list[RunRecord]:
    found = [r for r in Store().records(experiment, "gpu") if r.config["protocol"].get("width_multiple") == 64]
    return [r for r in found if r.config["protocol"]["phase"] == phase and r.method != "dense_aligned"]


@functools.cache
def model(kind: str) -> nn.Module:
    """LLaMA-1B in bf16 without memory: dense, aligned, or with half of its blocks, the cut spread evenly."""
    with torch.device("meta"):
        made = build(LLAMA).to(torch.bfloat16)
    if kind == "aligned":
        pad_feed_forward(made, 64)
    if kind == "shrunk":  # 32,768 units of 24 layers are what the records' 735,152,128 parameters leave
        inner = [pair for pair in ecospa.coupled_pairs(made) if pair.kind is PairKind.FFN]
        kept = {p.name: torch.arange(1408 if n % 3 == 0 else 1344)[None] for n, p in enumerate(inner)}
        ecospa.apply_plan(made, ecospa.SparsityPlan.build(made, kept))
        ecospa.trace.stand_for(made, "cuda")
    return made


@functools.cache
def traced(kind: str, phase: str) -> StepTrace:
    batch, length = (32, 256) if phase == "training" else (16, 192)
    tokens = torch.empty(batch, length, dtype=torch.int64, device="meta")
    if phase == "training":
        return trace_step(WithLoss(model(kind)), {"input_ids": tokens, "labels": tokens})
    own = {ecospa.trace._storage(tensor) for tensor in (*model(kind).parameters(), *model(kind).buffers())}
    meter = ecospa.trace._Meter(own)
    with torch.no_grad(), ecospa.trace._FusedAttention(meter), meter:
        model(kind)(input_ids=tokens, use_cache=False)
    return StepTrace(tuple(meter.operations), 0, 0, 0, 0, 2)


def rates(record: RunRecord, phase: str) -> Device:
    measured = record.payload["roofline"]["device"] if phase == "training" else record.payload["device"]
    return replace(H100, arithmetic=measured["arithmetic"], bandwidth=measured["bandwidth"])


def predicted(device: Device, phase: str, kind: str = "dense") -> float:
    return step_seconds(traced("shrunk", phase), device) / step_seconds(traced(kind, phase), device)


@pytest.mark.parametrize(("experiment", "phase"), [("training_speed", "training"), ("inference_speed", "prefill")])
def test_the_ratio_of_times_is_that_of_the_records(experiment: str, phase: str) -> None:
    found = records(experiment, phase)
    assert found
    for record in found:
        assert record.metrics["parameters"].value == sum(p.numel() for p in model("shrunk").parameters())
        metrics = {name: metric.value for name, metric in record.metrics.items()}
        measured = metrics["step_time_ratio"] if phase == "training" else 1 / metrics["throughput_ratio"]
        device = rates(record, phase)
        assert predicted(device, phase) == pytest.approx(measured, rel=WITHIN)
        # without alignment, and against a dense model that has it, most of the gain is not there
        assert predicted(replace(device, alignment_shares=()), phase) > 2 * measured
        assert predicted(device, phase, "aligned") > 2 * measured


def test_the_device_table_says_the_same_as_the_rates_that_were_measured() -> None:
    (record, *_) = records("training_speed", "training")
    assert predicted(H100, "training") == pytest.approx(record.metrics["step_time_ratio"].value, rel=WITHIN)
