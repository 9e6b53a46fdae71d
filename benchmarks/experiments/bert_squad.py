"""BERT on SQuAD at half of its blocks: how much do K and theta matter?

What it tests: EcoSpa's two own numbers: K, the share of the pairs that an event cuts, in 0.10, 0.30, 0.50, and theta,
the share of a pair's scores that it keeps, in 0.70, 0.90, 0.95. Beside these nine stand the dense model at equal steps,
structured movement pruning, and a small dense model of the final size.

All nine follow the same size over steps (`ecospa`), so that they differ in where they cut and in nothing else: K says
on how many pairs an event falls, theta in how fine slices. At the paper's own pace (`ecospa_own_pace`) K and theta also
say how much an event cuts, from half a percent of the blocks (0.10, 0.95) to fifteen (0.50, 0.70). In a run of a given
length the gentle ones then never reach the target, the harsh ones reach it in a few events, and F1 would tell sizes
apart rather than choices. That surface can be had as well, `--methods ecospa_own_pace`: the figure shows the sizes that
were reached beside it.

Below tier paper BERT starts from nothing, because no weights are at hand. SQuAD needs far more reading than its own
text gives, so F1 stays small, even though such a BERT is told two things that it would take long to find out: words of
the context that stand in the question carry the question's token type, and it trains on the windows with an answer
alone. An answer that reads no question, the first words of the context, says what a score is worth. With weights in a
folder: --weights DIR, which also lowers the learning rate, marks nothing, and trains on all windows.

Command: python -m benchmarks run bert_squad --tier cpu

Hours for all runs of a tier: smoke 0.01 (12 runs), cpu 0.7 (36 runs, 2 cores), gpu 5 (36 runs, one H200-class GPU),
paper 50 (36 runs, one H200-class GPU).

Data: smoke: what a parameter of a function is, from numpydoc docstrings of the installed packages. cpu and gpu: SQuAD
v1.1 from the mirror that ECOSPA_DATA names. paper: SQuAD v1.1 and bert-base-uncased from the Hub, 10 epochs.

Expected result: tier paper: dense near the published F1 of 88.5, and the choice of K and theta matters by a point or
two. Below it the surface is flat within its noise. The smoke tier shows that everything works.
"""

from __future__ import annotations

from benchmarks.encoders import EncoderSpec, ExamplesSpec, SpanSpec
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan, TrainingSettings, TrainingSpec
from benchmarks.scale import Scale, execute

NAME = "bert_squad"
TARGET = 0.5
SHARES = (0.10, 0.30, 0.50)
"""K: of the pairs, that one event may cut."""
THRESHOLDS = (0.70, 0.90, 0.95)
"""Theta: of a pair's scores, that one cut keeps."""
WITHOUT_TARGET = "dense"
WITH_BOTH = ("ecospa", "ecospa_own_pace")
METHODS = (WITHOUT_TARGET, "ecospa", "movement", "small_dense")
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
        EncoderSpec(layers=3, width=64, heads=2, vocabulary=30_522, positions=128),
        ExamplesSpec("squad", "plain_text", train_examples=20_000, evaluation_examples=1000),
        SpanSpec(TOKENIZER, 128, 48, "validation", question_tokens=32, only_answered=True, marked=True),
        TrainingSpec(
            steps=700, batch_size=16, learning_rate=2e-3, micro_batch_size=16, warmup_steps=70, weight_decay=0.01
        ),
        start_step=80, end_step=500, interval=10, width_multiple=4,
    ),
    "gpu": Scale(
        EncoderSpec(layers=12, width=768, heads=12, vocabulary=30_522, positions=512),
        ExamplesSpec("squad", "plain_text"),
        SpanSpec(TOKENIZER, 384, 128, "validation", only_answered=True, marked=True),
        TrainingSpec(
            steps=5000, batch_size=32, learning_rate=5e-5, micro_batch_size=32, warmup_steps=500, weight_decay=0.01,
            precision="bf16", device="cuda",
        ),
        start_step=600, end_step=3500, interval=70, width_multiple=8,
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


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """Methods that have K and theta at every pair of them, the others once."""
    return tuple(
        Cell(NAME, tier, method.name, settings) for method in methods for settings in _settings(SCALES[tier], method)
    )


def _settings(scale: Scale, method: MethodRef) -> tuple[TrainingSettings, ...]:
    if method.name == WITHOUT_TARGET:
        return (scale.settings(method, None),)
    if method.name not in WITH_BOTH:
        return (scale.settings(method, TARGET),)
    return tuple(
        scale.settings(method, TARGET, top_k=share, importance_threshold=threshold)
        for share in SHARES
        for threshold in THRESHOLDS
    )


EXPERIMENT = Experiment(
    name=NAME,
    question="BERT on SQuAD at 50 % of its blocks: K times theta of EcoSpa beside dense, movement and small dense",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.01, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=0.7, machine="2 cores, 4 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=5, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=50, machine="one H200-class GPU"),
    },
    methods=METHODS,
    cells=cells,
    sources=lambda tier: SCALES[tier].sources,
    execute=execute,
)
