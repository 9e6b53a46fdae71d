"""Capabilities of this project vs. the library Torch-Pruning, each tried and checked, and the time of a cut.

What it tests: half of the attention, and half of the feed-forward part, removed by either side from GPT-2, LLaMA, LLaMA
with two query heads per key/value head, BERT and ViT. Each capability is tried and checked, not read off a manual:

- a cut: as many parameters are removed as were asked for, and the model gives what the dense one gives with those
  entries set to zero; the check finds them by comparing weights, whoever cut them.
- decoding with a cache of keys and values: the same text as without.
- saving and loading, as safetensors and as a pickle: a new process loads the model and gives the same outputs.
- training on with the optimizer of before: three steps of AdamW, the cut, three more; the outputs are those of the
  dense model whose entries were held at zero.

What raises is written down with its own error, what changes nothing as doing nothing, what differs as wrong. Measured
as well, both sides interleaved, is the time from the call to the ready model without half of its heads, chosen by the
size of the weights.

Command: python -m benchmarks run peers --tier cpu

Hours for all runs of a tier: smoke 0.01 (4 runs), cpu 0.1 (10 runs, 2 cores).

Data: none. Needs the extra `peers`.

Expected result: EcoSpa does all of it; Torch-Pruning cuts BERT, ViT and plain LLaMA, and leaves the optimizer and the
checkpoint to its user. EcoSpa is not slower.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.capabilities import HEADS, PeerSettings
from benchmarks.specs.synthetic import ModelShape, no_sources

NAME = "peers"
METHODS = ("ecospa", "torch_pruning")


MODELS = tuple(
    ModelShape(name, 2, 64, 4, 16 if name == "vit" else 32, 128)
    for name in ("gpt2", "llama", "llama_grouped", "bert", "vit")
)
SMOKE = ("gpt2", "bert")
TIMED: dict[Tier, dict[str, int]] = {"smoke": {}, "cpu": {"layers": 6, "width": 384, "heads": 6}}
TURNS: dict[Tier, int] = {"smoke": 3, "cpu": 9}
LIMIT: dict[Tier, float] = {"smoke": 10.0, "cpu": 30.0}


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Both sides on every model; others have no side here."""
    return tuple(
        Cell(
            NAME, tier, method.name, PeerSettings(method, model, _timed(tier, method, model), TURNS[tier], LIMIT[tier])
        )
        for model in MODELS
        if tier != "smoke" or model.name in SMOKE
        for method in methods
        if method.name in METHODS
    )


def _timed(tier: Tier, method: MethodRef, model: ModelShape) -> ModelShape | None:
    """EcoSpa's record has the time of both sides."""
    if method.name != METHODS[0] or model.name not in HEADS:
        return None
    larger: dict[str, Any] = dict(TIMED[tier])
    return dataclasses.replace(model, **larger)


EXPERIMENT = Experiment(
    name=NAME,
    question="capabilities of EcoSpa vs. the library Torch-Pruning, tried and checked, and the time of a cut",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0,), hours=0.1, machine="2 cores, 8 GB"),
    },
    methods=METHODS,
    cells=cells,
    sources=no_sources,
    absent={"gpu": "what works does not depend on the device", "paper": "what works does not depend on the size"},
)
