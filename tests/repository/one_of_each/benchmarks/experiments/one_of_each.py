"""One of each: what is new, in a run.

What it tests: that one file is enough.

Command: python -m benchmarks run one_of_each

Hours for all runs of a tier: smoke 0.01.

Expected result: it stands in tables and plots.
"""

from dataclasses import replace

from benchmarks.experiment import Cell, Experiment, TierPlan
from benchmarks.experiments.gpt2_pretraining import SCALES

SCALE = SCALES["smoke"][0]
SCALE = replace(SCALE, training=replace(SCALE.training, steps=12, warmup_steps=2), start_step=2, end_step=10)


def cells(tier, methods):
    return tuple(Cell("one_of_each", tier, method.name, SCALE.settings(method, 0.6)) for method in methods)


EXPERIMENT = Experiment(
    name="one_of_each",
    question="is one file enough?",
    tiers={"smoke": TierPlan(seeds=(0,), hours=0.01, machine="any")},
    methods=("half_time", "importance_size"),
    cells=cells,
    sources=lambda tier: SCALE.sources,
    absent={"cpu": "a test", "gpu": "a test", "paper": "a test"},
)
