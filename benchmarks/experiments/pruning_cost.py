"""Cost of compressing a model of ten million parameters once: seconds, and memory on top of the model.

What it tests: time and peak memory of every method, from the call to the ready model, at 50 % of the block parameters,
with 128 calibration sequences of random tokens (or random images): values do not matter here, shapes do. Each method
is interleaved with EcoSpa's own one-shot plan and apply (`ecospa.plan_shrink` and `apply_plan`, scores from the
weights) on copies of the same model in the same process, so the ratio of the two is that of one run.

Models: gpt2, llama, bert, vit (timm), each about ten million parameters in six blocks.

Command: python -m benchmarks run pruning_cost --tier cpu

Hours for all runs of a tier: smoke 0.01 (gpt2 of 0.1 million parameters, 1 seed), cpu 1 (3 seeds, 2 cores).

Data: none.

Expected result: rankings by magnitude take well under a second, walks over blocks some seconds, what needs gradients of
all calibration data tens of seconds; EcoSpa's plan and apply is not slower than torch-pruning where both work.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments.compare import METHODS as COMPARED
from benchmarks.experiments.compare import WITHOUT_SIZE
from benchmarks.specs.pruning_cost import TARGET, CostModel, CostSettings
from benchmarks.specs.synthetic import no_sources

NAME = "pruning_cost"
METHODS = (*(name for name in COMPARED if name != "dense"), "torch_pruning")


_SMALL = {"sequences": 16, "batch_size": 8, "turns": 3}
_WHOLE = {"sequences": 128, "batch_size": 16, "turns": 1}
MODELS: dict[Tier, tuple[CostModel, ...]] = {
    "smoke": (CostModel("gpt2", 2, 64, 4, 32),),
    "cpu": (
        CostModel("gpt2", 6, 384, 6, 32),
        CostModel("llama", 6, 384, 6, 32),
        CostModel("bert", 6, 384, 6, 32),
        CostModel("vit", 6, 384, 6, 32),
    ),
}
SIZES: dict[Tier, dict[str, int]] = {"smoke": _SMALL, "cpu": _WHOLE}


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every method on every model; one that is not defined for a model refuses it, which is an outcome too."""
    return tuple(
        Cell(NAME, tier, method.name, CostSettings(method, _target(method), model, **SIZES[tier]))
        for model in MODELS[tier]
        for method in methods
    )


def _target(method: MethodRef) -> float | None:
    return None if method.name in WITHOUT_SIZE else TARGET


EXPERIMENT = Experiment(
    name=NAME,
    question="seconds and memory that each method takes to compress ten million parameters, vs. EcoSpa's plan",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=1, machine="2 cores, 8 GB"),
    },
    methods=METHODS,
    cells=cells,
    sources=no_sources,
    absent={"gpu": "the question is asked of a CPU", "paper": "the question is asked of a CPU"},
)
