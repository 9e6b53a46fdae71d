"""Time of prefill and decode of compressed models vs. their FLOPs.

What it tests: a forward pass over a batch (`prefill`), and generation token by token from a cache of keys and values
(`decode`), by a dense model, by the same with the classes that shrinking gives it, and by a compressed one, interleaved
in one process; every turn has a batch of its own, and turns end when the intervals of the ratios are within 1 %. EcoSpa
at 70, 50 and 30 % of the block parameters, at 50 % with one sequence and with many, and with a long one of 512 and of
2048 tokens; at 50 % what other methods leave: a rotated model (slicegpt), factors (low_rank), zeros
(magnitude_one_shot), which save as many parameters and may save no time; and the dense model at widths that matrix
units like (dense_aligned), whose gain needs no removal.

The decode that speed is judged by is compiled, from a cache of fixed size, on a GPU replayed as one CUDA graph: at 50 %
with one sequence, the usual number and many, at 30 % with the usual number. The same models are timed eagerly, from a
growing cache, in the same turns: what launches cost. Compiling has its own seconds.

At 50 % in other modes as well, dense and shrunk model alike, each compared with itself without the mode: merged
projections (LLaMA, BERT; the others have them merged anyway), and eager decode from a cache of fixed size. Prefill of
the usual number is compiled at 30 %, where what does not shrink weighs most.

Models: random weights, since shapes are what costs: GPT-2, LLaMA, BERT, ViT (timm); the last two have no decode.

Command: python -m benchmarks run inference_speed --tier cpu

Hours for all runs of a tier: smoke 0.01 (2 runs), cpu 2.4 (258 runs, 2 cores), gpu 1.0 (258 runs, one
H100-class GPU).

Data: none.

Expected result: prefill within 10 % of the ratio of FLOPs. Decoding one sequence reads all weights for one token:
its time follows the bytes, and eagerly the launches; compiling takes the launches away, and with them all that swapped
classes cost (`swapped_latency_ratio` at most 1.02).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments.training_speed import MACHINES, MODELS, WHOLE_HEADS
from benchmarks.specs.synthetic import InferenceMode, InferenceSpeedSettings, ModelShape, SpeedProtocol, no_sources

NAME = "inference_speed"
TARGETS = (0.7, 0.5, 0.3)
HALF = 0.5
ALIGNED = "dense_aligned"
METHODS = ("ecospa", "slicegpt", "low_rank", "magnitude_one_shot", ALIGNED)
Phase = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")
WRITE = ("gpt2", "llama")
"""Models of text that go on from what they have read."""
SEPARATE = ("llama", "bert")
"""Models that hold queries, keys and values apart."""
BATCHES: dict[str, tuple[int, int, int]] = {"smoke": (1, 2, 4), "cpu": (1, 8, 16), "gpu": (1, 16, 128)}
"""One sequence, the usual number and many."""
SEQUENCES: dict[str, int] = {"smoke": 32, "cpu": 96, "gpu": 192}
"""Tokens that are read; the position embeddings hold the generated ones, too."""
LENGTHS: dict[str, tuple[int, ...]] = {"smoke": (), "cpu": (512, 2048), "gpu": (512, 2048)}
"""Tokens of longer texts, of which one is read at a time: attention between tokens then costs as much as matrices."""
GENERATED: dict[str, int] = {"smoke": 4, "cpu": 16, "gpu": 32}
TURNS: dict[str, int] = {"smoke": 5, "cpu": 9, "gpu": 30}


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """EcoSpa at every size and batch, the others at one; what a method is not defined for, it refuses."""
    short = tuple(
        Cell(
            NAME, tier, method.name, InferenceSpeedSettings(method, target, model, _protocol(tier, batch, phase, mode))
        )
        for model in MODELS[tier]
        for phase in PHASES[: 2 if model.name in WRITE else 1]
        for method in methods
        for target, batch, mode in [
            *((*size, "plain") for size in _wanted(tier, method, model)),
            *_in_other_modes(tier, method, model, phase),
        ]
    )
    long = (cell for method in methods if method.name == METHODS[0] for cell in _long(tier, method))
    return (*short, *long, *_with_whole_heads(tier, methods))


def _with_whole_heads(tier: Tier, methods: tuple[MethodRef, ...]) -> Iterator[Cell]:
    """LLaMA at half of its blocks with heads as they are: the cells of the first records of tier gpu, which stay."""
    for method in (method for method in methods if tier == "gpu" and method.name == METHODS[0]):
        for phase in PHASES:
            own = _protocol(tier, BATCHES[tier][1], phase, "plain")
            settings = InferenceSpeedSettings(method, HALF, MODELS[tier][0], replace(own, width_multiple=WHOLE_HEADS))
            yield Cell(NAME, tier, method.name, settings)


def _long(tier: Tier, method: MethodRef) -> Iterator[Cell]:
    """One long text at half size, for the models of text, whose position embeddings are made to hold it."""
    for model in (model for model in MODELS[tier] if model.name != "vit"):
        for phase in PHASES[: 2 if model.name in WRITE else 1]:
            for length in LENGTHS[tier]:
                protocol = replace(_protocol(tier, BATCHES[tier][0], phase, "plain"), sequence=length)
                room = replace(model, length=length + protocol.generated)
                yield Cell(NAME, tier, method.name, InferenceSpeedSettings(method, HALF, room, protocol))


def _in_other_modes(
    tier: Tier, method: MethodRef, model: ModelShape, phase: Phase
) -> Iterator[tuple[float | None, int, InferenceMode]]:
    """Sizes, batches and modes but the plain one; compiling takes too long for a smoke run and for most points."""
    small, usual, large = BATCHES[tier]
    if tier != "smoke" and method.name == ALIGNED and phase == "decode":
        yield None, usual, "compiled"
    if tier == "smoke" or method.name != METHODS[0]:
        return
    if model.name in SEPARATE:
        yield from ((HALF, batch, "merged") for batch in (small, usual))
    if phase == "decode":
        yield from ((HALF, small, "static"), (HALF, usual, "static"))
        yield from ((HALF, batch, "compiled") for batch in (small, usual, large))
    yield min(TARGETS), usual, "compiled"


def _wanted(tier: Tier, method: MethodRef, model: ModelShape) -> Sequence[tuple[float | None, int]]:
    small, usual, large = BATCHES[tier]
    if tier == "smoke":
        return [(HALF, usual)] if method.name == METHODS[0] else []
    if method.name == ALIGNED:
        return [(None, usual)]
    if method.name != METHODS[0]:
        return [(HALF, usual)] if model.name in WRITE or method.name != "slicegpt" else []
    return [*((target, usual) for target in TARGETS), (HALF, small), (HALF, large)]


def _protocol(tier: Tier, batch: int, phase: Phase, mode: InferenceMode) -> SpeedProtocol:
    generated = GENERATED[tier] if phase == "decode" else 0
    return SpeedProtocol(phase, batch, SEQUENCES[tier], TURNS[tier], generated=generated, mode=mode, **MACHINES[tier])


EXPERIMENT = Experiment(
    name=NAME,
    question="time of prefill and decode by compressed vs. dense models, against their FLOPs",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=2.4, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=1.0, machine="one H100-class GPU"),
    },
    methods=METHODS,
    cells=cells,
    sources=no_sources,
    worth=lambda cell: 3 * ((cell.method, cell.settings.target, cell.settings.model.name) == ("ecospa", HALF, "llama")),
    absent={"paper": "tier gpu has the paper's models"},
)
