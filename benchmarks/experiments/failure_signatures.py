"""Failure signatures of the paper's summary, each triggered on purpose, and whether the library tells.

What it tests: the three warnings of the paper's summary, and the detection that a user of `ecospa` has. A trained GPT-2
goes on training while it is cut to half of its blocks:

- healthy: as it should be; nothing is to be told.
- early_and_steep: from the first step on, to 10 % within ten steps. Loss that diverges or stays up: ecospa.LossWatch.
- reversed_importance: the most important pairs go first. ecospa.check_ranking, before the first cut; then LossWatch.
- first_block: the importance always names the first block. The same two.
- irregular_widths: one model of random weights cut to half at multiples of 32 (smoke: 16), at multiples of 1, and with
  one index less everywhere, in fp32 and in bf16; time of a training step over the dense one's against the same ratio of
  FLOPs. ecospa.check_widths.

Command: python -m benchmarks run failure_signatures --tier cpu --threads 1

Hours for all runs of a tier: smoke 0.01 (5 runs), cpu 0.25 (15 runs and three models to train, one thread).

Data: smoke: docstrings of the installed packages. cpu: OpenDocs, from the mirror that ECOSPA_DATA names. The model is
trained on the same text, one per seed, once; it is kept in the work folder.

Expected result: the healthy run is told nothing; a steep schedule is told within one window after its first cuts; a
broken importance before its first cut, and once more when the loss does not come back. An index less saves nothing: in
fp32, whose kernels take any width, a step takes as long; in bf16, where the processor has matrix units, it is slower.
What the layers take is rough on a busy machine. The smoke tier shows that everything works.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.data import source as sources
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs import from_scratch
from benchmarks.specs.failure_signatures import StressSettings, WatchSpec, WidthSettings
from benchmarks.specs.language import DataSpec
from benchmarks.specs.pretrained import FineTuning, TrainedModel
from benchmarks.specs.synthetic import ModelShape
from benchmarks.specs.training import ShrinkSpec, TrainingSpec

NAME = "failure_signatures"
HEALTHY, STEEP, IRREGULAR = "healthy", "early_and_steep", "irregular_widths"
BROKEN = {"reversed_importance": "reversed", "first_block": "first_block"}
METHODS = (HEALTHY, STEEP, *BROKEN, IRREGULAR)
TARGET = 0.5


@dataclass(frozen=True)
class Subject:
    """The stressed model of a tier and the model whose widths are timed."""

    healthy: StressSettings
    widths: WidthSettings


_SCRATCH = from_scratch.scale(8e-3, split="validation")

SUBJECTS: dict[Tier, Subject] = {
    "smoke": Subject(
        StressSettings(
            None,
            ShrinkSpec(TARGET, total_steps=60, start_step=10, end_step=50, interval=5, width_multiple=2),
            WatchSpec(window=8, patience=20, sequences=8),
            TrainedModel(
                layers=2, width=64, heads=4, vocabulary=512, positions=64, name="GPT-2, 2 layers, trained",
                pretraining=TrainingSpec(400, batch_size=8, learning_rate=8e-3, micro_batch_size=8, warmup_steps=20),
            ),
            DataSpec("docstrings", "default", train_bytes=400_000, evaluation_tokens=5_000),
            FineTuning("bpe-512", sequence_length=64, stride=63, split="validation"),
            TrainingSpec(60, batch_size=8, learning_rate=1e-3, micro_batch_size=8, warmup_steps=0),
        ),
        WidthSettings(TARGET, (16, 1), ModelShape("gpt2", layers=2, width=128, heads=2, length=64), batch=2, turns=5),
    ),
    "cpu": Subject(
        StressSettings(
            None,
            ShrinkSpec(TARGET, total_steps=400, start_step=40, end_step=300, interval=20, width_multiple=4),
            WatchSpec(window=20, patience=100, sequences=16),
            TrainedModel(
                **{**vars(_SCRATCH.model), "name": "GPT-2, 4 layers, trained"},
                pretraining=replace(_SCRATCH.training, steps=2500),
            ),
            _SCRATCH.data,
            FineTuning(**vars(_SCRATCH.protocol)),
            TrainingSpec(400, batch_size=8, learning_rate=1e-3, micro_batch_size=8, warmup_steps=0),
        ),
        WidthSettings(TARGET, (32, 1), ModelShape("gpt2", layers=2, width=512, heads=8, length=128), batch=4, turns=25),
    ),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """One cell per failure, and the healthy run."""
    subject, wanted = SUBJECTS[tier], {method.name for method in methods}
    return tuple(Cell(NAME, tier, name, _settings(subject, name)) for name in METHODS if name in wanted)


def _settings(subject: Subject, name: str) -> StressSettings | WidthSettings:
    if name == IRREGULAR:
        return subject.widths
    healthy = subject.healthy
    if name == STEEP:
        steep = replace(healthy.shrink, target_size=0.1, start_step=0, end_step=10, interval=2)
        return replace(healthy, shrink=steep)
    return replace(healthy, importance=BROKEN.get(name))


def data_sources(tier: Tier) -> tuple[sources.BoundSource, ...]:
    """The text that the model is trained and evaluated on."""
    data = SUBJECTS[tier].healthy.data
    return (sources.find(data.source).bind(data.configuration),)


EXPERIMENT = Experiment(
    name=NAME,
    question="too early and steep, a broken importance, irregular widths: triggered on purpose; does the library tell?",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=0.25, machine="2 cores, 4 GB"),
    },
    methods=METHODS,
    cells=cells,
    sources=data_sources,
    absent={
        "gpu": "the signatures do not depend on the machine but for widths, which training_speed times there",
        "paper": "a failed run of the paper's size teaches what a small one does; run tier cpu",
    },
)
