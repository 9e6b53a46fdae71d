"""Zero-shot accuracy of compressed LLaMAs, at tasks that they were not trained for.

What it tests: zero-shot accuracy vs. perplexity, because the two do not fall together. Models are made smaller as in
llama_finetuning, with the same fine-tuning steps for every method, and judged by lm-eval's own tasks: BoolQ, PIQA,
HellaSwag, WinoGrande, ARC-easy, ARC-challenge, OpenBookQA; tier paper adds GSM8K and BBH, which are generated. The
controls are the dense model and random_pairs; a small dense one from scratch cannot learn in as many steps what a
trained one knows.

At 0.3 and 1.3 million parameters a model knows nothing of the world, dense or not: expect chance at all seven, and read
them as a proof that shrunk models pass through the harness unchanged. Chance is given for every accuracy. So one more
task is made from held-out text of the model's own kind, `continuation`: which of four passages goes on from this one?
There small models are above chance, and what a cut costs can be seen.

GSM8K and BBH are for tier paper alone: their prompts have about 1,000 to 2,000 tokens, the small models hold 256 or
512, and a prompt of which only the end is seen measures nothing; a score of 0 would be the protocol's, not the model's.

Questions: the first `limit` of every task, those of the validation side where the test side has no answers. A context
that is too long loses its beginning, as the harness does it, an answer that is longer than the model's positions (some
of PIQA) its end. acc_norm divides by the length of an answer.

Command: ECOSPA_DATA=path/of/mirror python -m benchmarks run llama_zero_shot --tier cpu

Hours for all runs of a tier: smoke 0.02 (6 runs, the continuation task alone), cpu 0.4 (2 cores), gpu 4 (one
H200-class GPU), paper 150 (one GPU of 192 GB).

Data: smoke: docstrings of the installed packages. cpu and gpu: as llama_finetuning, and the Parquet files of the tasks
in the mirror that ECOSPA_DATA names (HellaSwag: 1,000 of its questions). paper: the Hub.

Expected result: with small models no difference from chance but at `continuation`; there the dense model ahead, and
methods in the order of their perplexities. At 7 billion parameters and 50 % all structured methods lose ten points and
more on average. The smoke tier shows that everything works; its order means nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from benchmarks.data import source as sources
from benchmarks.data.zero_shot import harness
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import llama_finetuning
from benchmarks.experiments.llama_finetuning import FineTuningProtocol
from benchmarks.specs.scale import Scale

NAME = "llama_zero_shot"
WITHOUT_TARGET = "dense"
METHODS = (WITHOUT_TARGET, "ecospa", "random_pairs", "surgeon", "llm_pruner", "sparsegpt")
CHOICES = "boolq piqa hellaswag winogrande arc_easy arc_challenge openbookqa"
GENERATED = "gsm8k bbh_cot_fewshot"


@dataclass(frozen=True)
class ZeroShotProtocol(FineTuningProtocol):
    """Measurement of accuracy; `harness_tasks` are names of lm-eval with spaces between, `limit` None takes all."""

    task: ClassVar[str] = "zero_shot"

    harness_tasks: str = ""
    limit: int | None = None
    continuations: int = 400

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the harness's tasks."""
        return tuple(self.harness_tasks.split())


@dataclass(frozen=True)
class ZeroShotTier:
    """Measurements of a tier, and their sizes."""

    harness_tasks: str
    limit: int | None
    continuations: int
    sizes: tuple[float, ...]


TIERS: dict[Tier, ZeroShotTier] = {
    "smoke": ZeroShotTier("", None, 40, (0.5,)),
    "cpu": ZeroShotTier(CHOICES, 100, 200, (0.8, 0.5)),
    "gpu": ZeroShotTier(CHOICES, None, 2000, (0.8, 0.5)),
    "paper": ZeroShotTier(f"{CHOICES} {GENERATED}", None, 2000, (0.8, 0.7, 0.6, 0.5)),
}


def _scales(tier: Tier) -> tuple[Scale, ...]:
    """The models and fine-tunings of llama_finetuning, judged by this tier's tasks as well."""
    scale = TIERS[tier]
    asked: dict[str, Any] = {
        "harness_tasks": scale.harness_tasks,
        "limit": scale.limit,
        "continuations": scale.continuations,
    }
    return tuple(
        replace(subject.scale, protocol=ZeroShotProtocol(**asdict(subject.scale.protocol), **asked))
        for subject in llama_finetuning.SUBJECTS[tier]
    )


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """On every model the dense one once, the others at every size."""
    return tuple(
        Cell(NAME, tier, method.name, scale.settings(method, target))
        for scale in _scales(tier)
        for method in methods
        for target in ((None,) if method.name == WITHOUT_TARGET else TIERS[tier].sizes)
    )


def data_sources(tier: Tier) -> tuple[sources.BoundSource, ...]:
    """Return the sources that the fine-tuning needs, and the data of every task."""
    names = TIERS[tier].harness_tasks.split()
    return (*llama_finetuning.data_sources(tier), *(harness.source(name) for name in names))


EXPERIMENT = Experiment(
    name=NAME,
    question="a fine-tuned LLaMA at 80 and 50 %: BoolQ, PIQA, HellaSwag, WinoGrande, ARC, OpenBookQA, through lm-eval",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=0.7, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=4, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=150, machine="one GPU of 192 GB", memory=140, data=14, disk=350),
    },
    methods=METHODS,
    cells=cells,
    sources=data_sources,
)
