"""Memory of training while a model shrinks: at its peak, at the end, and on average.

What it tests: the bytes of a run that starts dense and shrinks to 70, 50 or 30 % of the block parameters: weights,
gradients, optimizer state, and the peak of every step, by the allocator's own account (tensors, not the process). The
peak is the dense one, because training starts dense; so one more run keeps to a budget of 70 % of the dense peak from
the first step on (`ecospa.MemoryBudget`: same batch, smaller passes). Measurements are compared with the
predictions of `ecospa plan`.

Models: random weights, as in training_speed, with the same multiples. An aligned dense model holds more bytes than the
dense one, so it is no control here.

Command: python -m benchmarks run training_memory --tier cpu

Hours for all runs of a tier: smoke 0.01 (3 runs), cpu 0.7 (60 runs, 2 cores), gpu 0.5 (66 runs, one H100-class GPU).

Data: none.

Expected result: weights, gradients and optimizer as predicted, to the byte; the peak of an unbudgeted run at the dense
one, the steady state lower, but not in proportion: activations of the residual stream do not shrink.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments.training_speed import BATCHES, MACHINES, MODELS, SEQUENCES, WHOLE_HEADS
from benchmarks.specs.synthetic import TrainingMemorySettings, no_sources
from benchmarks.specs.training_memory import METHODS, MemoryProtocol

NAME = "training_memory"
TARGETS = (0.7, 0.5, 0.3)
HALF = 0.5
BUDGET = 0.7
STEPS: dict[str, int] = {"smoke": 8, "cpu": 16, "gpu": 40}


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """The dense run, every size, and half of the blocks within a budget."""
    found = tuple(
        Cell(NAME, tier, method.name, TrainingMemorySettings(method, target, model, _protocol(tier, budget)))
        for model in MODELS[tier]
        for method in methods
        for target, budget in _wanted(tier, method)
    )
    return (*found, *_with_whole_heads(tier, methods))


def _with_whole_heads(tier: Tier, methods: tuple[MethodRef, ...]) -> Iterator[Cell]:
    """LLaMA at half of its blocks with heads as they are: the cells of the first records of tier gpu, which stay."""
    if tier != "gpu":
        return
    for method in (method for method in methods if method.name != "dense"):
        for budget in (None, BUDGET):
            protocol = replace(_protocol(tier, budget), width_multiple=WHOLE_HEADS)
            yield Cell(NAME, tier, method.name, TrainingMemorySettings(method, HALF, MODELS[tier][0], protocol))


def _wanted(tier: Tier, method: MethodRef) -> list[tuple[float | None, float | None]]:
    if method.name == "dense":
        return [(None, None)]
    sizes = (HALF,) if tier == "smoke" else TARGETS
    return [*((target, None) for target in sizes), (HALF, BUDGET)]


def _protocol(tier: Tier, budget: float | None) -> MemoryProtocol:
    *_, batch = BATCHES[tier]  # large, so that activations matter
    return MemoryProtocol("training", batch, SEQUENCES[tier], STEPS[tier], budget=budget, **MACHINES[tier])


EXPERIMENT = Experiment(
    name=NAME,
    question="bytes of training a model that shrinks: peak, steady state and average, with and without a budget",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=0.7, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=0.5, machine="one H100-class GPU"),
    },
    methods=METHODS,
    cells=cells,
    sources=no_sources,
    absent={"paper": "tier gpu has the paper's models"},
)
