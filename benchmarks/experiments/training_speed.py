"""Time of a training step of shrunk models vs. their FLOPs.

What it tests: seconds of a training step (forward, backward, AdamW) of a dense model, of the same with the classes that
shrinking gives it, and of a shrunk one, interleaved in one process, every turn with a batch of its own. The ratio is
compared with that of the FLOPs (embedding and head counted) and with what `ecospa plan` predicts from rates measured in
the same process; and what shrinking itself costs: the estimator per step, and an event in steps.

Models: random weights, since shapes are what costs: GPT-2, LLaMA, BERT, ViT (timm). At 70, 50 and 30 % of the block
parameters, and at 50 % with smaller and larger batches.
Method ecospa_tied keeps query/key and value widths equal: fused attention on the CPU pads unequal ones, and what it
pads a cut does not save. Control dense_aligned is the dense model with feed-forward widths padded by zeros to the
multiple: LLaMA-1B's, 5461, is odd, and matrix units run far below their rate on it; times are compared with both.

Tier gpu rounds by the device table, heads to 16 and feed-forward layers to 64; LLaMA at 50 % also with heads as they
are (multiples of 64), as in the first records of that tier.

At 50 %, GPT-2 and LLaMA also train in other modes, dense and shrunk model alike, each compared with itself without the
mode: a fused optimizer, mixed precision (left out on a CPU that cannot multiply in bfloat16), and a compiled step,
whose first step stands apart, and which is also taken at 30 %.

Command: python -m benchmarks run training_speed --tier cpu

Hours for all runs of a tier: smoke 0.01 (2 runs), cpu 2.6 (132 runs, 2 cores), gpu 1.7 (156 runs, one H100-class
GPU).

Data: none.

Expected result: the ratio of times within 5 % of that of FLOPs, where matrices are large; a step never slower than
the dense one. What a mode brings a dense model, it brings a shrunk one; a compiled step, which fuses operations that do
not shrink, brings it more. On a CPU dense_aligned changes nothing; on a GPU it takes most of what LLaMA gains beyond
its FLOPs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.multiples import Multiples, by_kind, hidden_width
from benchmarks.specs.synthetic import ModelShape, SpeedProtocol, TrainingMode, TrainingSpeedSettings, no_sources

NAME = "training_speed"
TARGETS = (0.7, 0.5, 0.3)
TIED = "ecospa_tied"
ALIGNED = "dense_aligned"
METHODS = ("ecospa", TIED, ALIGNED)
HALF = 0.5
PLAIN: TrainingMode = "plain"
OTHER_MODES: tuple[TrainingMode, ...] = ("fused", "autocast", "compiled")
IN_MODES = ("gpt2", "llama")

MODELS: dict[Tier, tuple[ModelShape, ...]] = {
    "smoke": (ModelShape("gpt2", layers=2, width=64, heads=4, length=64),),
    "cpu": (
        ModelShape("gpt2", layers=6, width=512, heads=8, length=128, vocabulary=4096),
        ModelShape("llama", layers=6, width=512, heads=8, length=128, vocabulary=4096),
        ModelShape("bert", layers=6, width=512, heads=8, length=128, vocabulary=4096),
        ModelShape("vit", layers=6, width=512, heads=8, length=44),
    ),
    "gpu": (
        ModelShape("llama", layers=24, width=2048, heads=32, length=256, vocabulary=32_000),
        ModelShape("gpt2", layers=24, width=1024, heads=16, length=1024, vocabulary=50_257),
        ModelShape("bert", layers=12, width=768, heads=12, length=512, vocabulary=30_522),
        ModelShape("vit", layers=12, width=768, heads=12, length=224, patch=16),
    ),
}
SEQUENCES: dict[str, int] = {"smoke": 64, "cpu": 128, "gpu": 256}
BATCHES: dict[str, tuple[int, int, int]] = {"smoke": (4, 4, 4), "cpu": (1, 4, 16), "gpu": (8, 32, 64)}
"""A smaller one, the usual one and a larger one."""
TURNS: dict[str, int] = {"smoke": 5, "cpu": 9, "gpu": 20}
MACHINES: dict[str, dict[str, Any]] = {
    "smoke": {"width_multiple": 4},
    "cpu": {"width_multiple": 16},
    "gpu": {"width_multiple": Multiples(qk=16, vo=16, ffn=64), "precision": "bf16", "device": "cuda"},
}
"""Where a tier is measured, and the multiples that suit it: on a GPU those of the device table, by kind of pair."""
WHOLE_HEADS = 64
"""The multiple for all pairs of the first records of tier gpu: heads of 64 stay whole, and 30 % is out of reach."""


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every size at the usual batch; half of the blocks with a smaller and a larger one, and in other modes, too."""
    found = tuple(
        Cell(NAME, tier, method.name, TrainingSpeedSettings(method, target, model, _protocol(tier, batch, mode)))
        for model in MODELS[tier]
        for method in methods
        for target, batch, mode in [
            *((*point, PLAIN) for point in _points(tier, method, model)),
            *((target, BATCHES[tier][1], mode) for target, mode in _modes(tier, method, model)),
        ]
    )
    return (*found, *_with_whole_heads(tier, methods))


def _with_whole_heads(tier: Tier, methods: tuple[MethodRef, ...]) -> Iterator[Cell]:
    """LLaMA at half of its blocks with heads as they are: the cells of the first records of tier gpu, which stay."""
    if tier != "gpu":
        return
    llama, protocol = MODELS[tier][0], replace(_protocol(tier, BATCHES[tier][1], PLAIN), width_multiple=WHOLE_HEADS)
    for method in (method for method in methods if method.name in METHODS):
        target = None if method.name == ALIGNED else HALF
        yield Cell(NAME, tier, method.name, TrainingSpeedSettings(method, target, llama, protocol))


def _points(tier: Tier, method: MethodRef, model: ModelShape) -> list[tuple[float | None, int]]:
    """Kept size and batch; heads that are tied differ in shape, not in how they grow with the batch.

    The aligned dense model differs from the dense one only where widths are no multiples. Such a model is measured at
    every batch and in every mode; the others show at one batch that nothing changes.
    """
    small, usual, large = BATCHES[tier]
    if tier != "smoke" and method.name == ALIGNED:
        return [(None, batch) for batch in ((small, usual, large) if _is_odd(tier, model) else (usual,))]
    if tier == "smoke":
        return [(HALF, usual)] if method.name != ALIGNED else []
    sizes: list[tuple[float | None, int]] = [(target, usual) for target in TARGETS]
    return sizes if method.name == TIED else [*sizes, (HALF, small), (HALF, large)]


def _is_odd(tier: Tier, model: ModelShape) -> bool:
    """Return whether feed-forward layers of a dense model are no multiples of what a tier cuts to."""
    return hidden_width(model) % by_kind(MACHINES[tier]["width_multiple"]).ffn != 0


def _modes(tier: Tier, method: MethodRef, model: ModelShape) -> list[tuple[float | None, TrainingMode]]:
    """Sizes and modes other than the plain one; compiling takes too long for a smoke run."""
    if tier != "smoke" and method.name == ALIGNED and model.name in IN_MODES and _is_odd(tier, model):
        return [(None, mode) for mode in OTHER_MODES]
    if tier == "smoke" or method.name != METHODS[0] or model.name not in IN_MODES:
        return []
    return [*((HALF, mode) for mode in OTHER_MODES), (min(TARGETS), "compiled")]


def _protocol(tier: Tier, batch: int, mode: TrainingMode) -> SpeedProtocol:
    machine = dict(MACHINES[tier])
    if mode == "autocast":
        machine["precision"] = "fp32"  # of the weights; it narrows what they are computed with
    return SpeedProtocol("training", batch, SEQUENCES[tier], TURNS[tier], mode=mode, **machine)


EXPERIMENT = Experiment(
    name=NAME,
    question="time of a training step of shrunk vs. dense models, against their FLOPs",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=2.6, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=1.7, machine="one H100-class GPU"),
    },
    methods=METHODS,
    cells=cells,
    sources=no_sources,
    worth=lambda cell: 4 * ((cell.method, cell.settings.target, cell.settings.model.name) == ("ecospa", HALF, "llama")),
    absent={"paper": "tier gpu has the paper's models"},
)
