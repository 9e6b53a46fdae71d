"""Aligned vs. misaligned removal: error of a matrix product whose factors lose the same or different indices.

What it tests: the argument of the paper's Appendix A. A share of the inner indices of W1 W2 is removed in three ways:

- aligned: the indices with the smallest ||W1[:, j]|| * ||W2[j, :]||, from both matrices.
- misaligned: from each matrix the indices of its own smallest norms; an index that only one of them keeps is zero.
- random: random indices, from both matrices.

The error is the relative Frobenius norm, ||W1 W2 - W1' W2'|| / ||W1 W2||. Matrices: `random` (Gaussian), `scaled`
(Gaussian with log-normal scales per index, apart for the two sides), `low_rank` (Gaussian factors of a quarter of the
width, plus noise), `trained` (the pairs of a GPT-2 trained here).

Command: python -m benchmarks run mismatch_error --tier smoke

Hours: smoke 0.02, cpu 0.1 (3 seeds, 2 cores). Data: as coupled_vs_uncoupled.

Expected result: aligned below both others, at every share and for every kind. Of these, misaligned errs most on `random`
and `low_rank` matrices, where all indices weigh about the same and it loses more of them (all that one side drops); on
`scaled` and `trained` ones random errs most although it is aligned, because misaligned still keeps what is large. For
`random` matrices the difference between aligned and random is small.
"""

from __future__ import annotations

from benchmarks.data import source as sources
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.product_error import MismatchSettings
from benchmarks.specs.training import TrainingSpec

NAME = "mismatch_error"
METHOD = "index_removal"
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


SCALES: dict[Tier, MismatchSettings] = {
    "smoke": MismatchSettings(
        128, 64, 128, 10, SHARES,
        ModelSpec(layers=2, width=128, heads=4, vocabulary=2048, positions=64),
        DataSpec("docstrings", "default", evaluation_tokens=20_000),
        ProtocolSpec("bpe-2048", sequence_length=64, stride=63, split="validation"),
        TrainingSpec(steps=60, batch_size=8, learning_rate=2e-3, micro_batch_size=8, warmup_steps=10),
    ),
    "cpu": MismatchSettings(
        512, 256, 512, 30, SHARES,
        ModelSpec(layers=4, width=192, heads=6, vocabulary=4096, positions=128),
        DataSpec("wikitext", "wikitext-2-v1", evaluation_tokens=60_000),
        ProtocolSpec("bpe-4096", sequence_length=128, stride=127, split="test"),
        TrainingSpec(steps=600, batch_size=8, learning_rate=2e-3, micro_batch_size=8, warmup_steps=60),
    ),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """One cell: all kinds of matrices and all three removals are in one record."""
    return (Cell(NAME, tier, METHOD, SCALES[tier]),) if METHOD in {method.name for method in methods} else ()


def data_sources(tier: Tier) -> tuple[sources.BoundSource, ...]:
    """The text that the trained matrices come from."""
    data = SCALES[tier].data
    return (sources.find(data.source).bind(data.configuration),)


EXPERIMENT = Experiment(
    name=NAME,
    question="relative error of W1 W2 when indices are removed aligned, misaligned, or at random (Appendix A)",
    tiers={
        "smoke": TierPlan(seeds=(0, 1, 2), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=0.1, machine="2 cores, 8 GB"),
    },
    methods=(METHOD,),
    cells=cells,
    sources=data_sources,
    absent={"gpu": "it multiplies small matrices only; run tier cpu", "paper": "it has no training; run tier cpu"},
)
