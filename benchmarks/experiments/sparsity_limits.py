"""Per-component sensitivity: the width of each part of a trained GPT-2 at which quality breaks.

What it tests: where quality breaks, by kind of pair (query/key, value/output, feed-forward) and by depth (early,
middle and late third of the blocks). One part at a time is cut to 90 ... 10 % of its width, all of its pairs alike, by
EcoSpa's index scores; everything else stays dense. Perplexity is measured right after the cut, and again after a short
recovery training, compared with the dense model with the same recovery. A part breaks where its perplexity passes that
of the dense model by 5 %; the width is interpolated between the two measured ones around it.

A part is not a method: it is what is cut, and has the place of a method in tables and on the command line.

Command: python -m benchmarks run sparsity_limits --tier cpu

Hours for all runs of a tier: smoke 0.02 (6 runs), cpu 0.6 (18 runs and three models to train, 2 cores), gpu 1 (18 runs,
one H200-class GPU).

Data: smoke: docstrings of the installed packages. cpu and gpu: OpenDocs, from the mirror that ECOSPA_DATA names. The
model is trained on the same text, one per seed, once; it is kept in the work folder.

Expected result: query/key pairs give way last, because the softmax hides much of what they lose, and value/output pairs
and the feed-forward pairs earlier; early blocks mind more than late ones; a few steps of recovery move every break to
much smaller widths. The smoke tier shows that everything works; a model that has hardly learned anything cannot break.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.data import source as sources
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.specs.pretrained import FineTuning, TrainedModel
from benchmarks.specs.training import TrainingSpec
from benchmarks.specs.width_sensitivity import PARTS, LimitsSettings

NAME = "sparsity_limits"
WIDTHS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
MARGIN = 0.05
"""Share by which perplexity may exceed the dense model's."""


@dataclass(frozen=True)
class Subject:
    """The trained model of a tier, its text, and the recovery that it is given."""

    model: TrainedModel
    data: DataSpec
    protocol: ProtocolSpec
    recovery: TrainingSpec


SUBJECTS: dict[Tier, Subject] = {
    "smoke": Subject(
        TrainedModel(
            layers=3, width=64, heads=4, vocabulary=512, positions=64, name="GPT-2, 3 layers, trained",
            pretraining=TrainingSpec(steps=60, batch_size=8, learning_rate=4e-3, micro_batch_size=8, warmup_steps=6),
        ),
        DataSpec("docstrings", "default", train_bytes=400_000, evaluation_tokens=5_000),
        FineTuning("bpe-512", sequence_length=64, stride=63, split="validation"),
        TrainingSpec(steps=3, batch_size=8, learning_rate=1e-3, micro_batch_size=8, warmup_steps=1),
    ),
    "cpu": Subject(
        TrainedModel(
            layers=6, width=96, heads=3, vocabulary=512, positions=128, name="GPT-2, 6 layers, trained",
            pretraining=TrainingSpec(
                steps=2400, batch_size=8, learning_rate=3e-3, micro_batch_size=8, warmup_steps=180
            ),
        ),
        DataSpec("opendocs", "default", train_bytes=16_000_000, evaluation_tokens=60_000),
        FineTuning("bpe-512", sequence_length=128, stride=127, split="validation"),
        TrainingSpec(steps=40, batch_size=8, learning_rate=1e-3, micro_batch_size=8, warmup_steps=4),
    ),
    "gpu": Subject(
        TrainedModel(
            layers=12, width=768, heads=12, vocabulary=50257, positions=1024, name="GPT-2-Small, trained",
            pretraining=TrainingSpec(
                steps=1300, batch_size=32, learning_rate=6e-4, micro_batch_size=32, warmup_steps=100,
                precision="bf16", device="cuda",
            ),
        ),
        DataSpec("opendocs", "default", evaluation_tokens=500_000),
        FineTuning("gpt2", sequence_length=1024, stride=1023, split="validation"),
        TrainingSpec(
            steps=40, batch_size=16, learning_rate=1e-4, micro_batch_size=16, warmup_steps=4, device="cuda",
        ),
    ),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """One cell per part."""
    subject, wanted = SUBJECTS[tier], {method.name for method in methods}
    return tuple(
        Cell(
            NAME, tier, part,
            LimitsSettings(part, WIDTHS, MARGIN, subject.model, subject.data, subject.protocol, subject.recovery),
        )
        for part in PARTS
        if part in wanted
    )  # fmt: skip


def data_sources(tier: Tier) -> tuple[sources.BoundSource, ...]:
    """The text that the model is trained and evaluated on."""
    data = SUBJECTS[tier].data
    return (sources.find(data.source).bind(data.configuration),)


EXPERIMENT = Experiment(
    name=NAME,
    question="per-component sensitivity: one part of a GPT-2 cut to 90 ... 10 % of its width, by kind and by depth",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=0.6, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=1, machine="one H200-class GPU"),
    },
    methods=PARTS,
    cells=cells,
    sources=data_sources,
    absent={"paper": "the paper has no such table; tier gpu has GPT-2-Small, trained here"},
)
