"""Learning rate of all-MiniLM-L6-v2 in fine-tuning, chosen on a part of the training split.

What it tests: nothing about the method. The dense model is fine-tuned on SST-2 and on SQuAD, at the scales of tier cpu
of bert_sst2 and bert_squad, with three rates, a factor of two apart, and judged by the end of the training split (1,000
rows, which these runs do not train on). The rate with the best accuracy and the best F1 is that of every run from these
weights, shrinking or not: MINILM_RATE.

Command: python -m benchmarks run bert_rates --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: cpu 0.4 (6 runs, 2 cores).

Data: SST-2 and SQuAD v1.1, training splits, from the mirror that ECOSPA_DATA names.

Expected result: one rate for both tasks, or two neighbours; a minimum at the edge asks for another rate.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.data.examples import HELD_OUT
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import bert_squad, bert_sst2
from benchmarks.specs.encoder import MINILM_RATE
from benchmarks.specs.scale import Scale

NAME = "bert_rates"
RATES = (MINILM_RATE / 2, MINILM_RATE, MINILM_RATE * 2)
SCALES = (bert_sst2.SCALES["cpu"], bert_squad.SCALES["cpu"])


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every rate on every task."""
    return tuple(
        Cell(NAME, tier, method.name, _with_rate(scale, rate).settings(method, None))
        for method in methods
        for scale in SCALES
        for rate in RATES
    )


def _with_rate(scale: Scale, rate: float) -> Scale:
    return replace(
        scale,
        protocol=replace(scale.protocol, split=HELD_OUT),
        training=replace(scale.training, learning_rate=rate),
    )


EXPERIMENT = Experiment(
    name=NAME,
    question="which learning rate a pretrained BERT wants in fine-tuning, on a held-out part of the training split",
    tiers={"cpu": TierPlan(seeds=(0,), hours=0.4, machine="2 cores, 4 GB")},
    methods=("dense",),
    cells=cells,
    sources=lambda tier: tuple(dict.fromkeys(source for scale in SCALES for source in scale.sources)),
    absent={
        "smoke": "nothing is decided there",
        "gpu": "the rate of tier cpu",
        "paper": "rates of that tier are the published ones",
    },
)
