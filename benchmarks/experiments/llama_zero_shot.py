"""Zero-shot accuracy of compressed LLaMAs, at tasks that they were not trained for.

What it tests: zero-shot accuracy vs. perplexity, because the two do not fall together. Models are made smaller as in
llama_finetuning, with the same fine-tuning steps for every method, and judged by lm-eval's own tasks: BoolQ, PIQA,
HellaSwag, WinoGrande, ARC-easy, ARC-challenge, OpenBookQA; tier paper adds GSM8K and BBH, which are generated. The
controls are the dense model and random_pairs; a small dense one from scratch cannot learn in as many steps what a
trained one knows.

SmolLM2-135M-Instruct knows something, so its accuracies can fall: the seven tasks, and as a check of behaviour GSM8K
and three tasks of BBH (boolean expressions, navigation, counting of objects), three or five solved examples before each
question. Those are generated: a model that is broken does not even answer in the form that it was shown. Subsets, so
that a run takes minutes: the first 100 questions of every task at tier cpu (standard errors up to 0.05) and 500 at tier
gpu, 12 and 64 of each that is generated. Its dense model stands there twice, as it came and after the fine-tuning, as
do cuts to 80 % without any. One seed: the choice of questions weighs more.

At 0.3 and 1.3 million parameters a model knows nothing of the world, dense or not: expect chance at all seven, and read
them as a proof that shrunk models pass through the harness unchanged. Chance is given for every accuracy. So one more
task is made from held-out text of the model's own kind, `continuation`: which of four passages goes on from this one?
There small models are above chance, and what a cut costs can be seen.

GSM8K and BBH are not for these: their prompts have about 1,000 to 2,000 tokens, the small models hold 256 or
512, and a prompt of which only the end is seen measures nothing; a score of 0 would be the protocol's, not the model's.

Questions: the first `limit` of every task, those of the validation side where the test side has no answers. A context
that is too long loses its beginning, as the harness does it, an answer that is longer than the model's positions (some
of PIQA) its end. acc_norm divides by the length of an answer.

Command: ECOSPA_DATA=path/of/mirror python -m benchmarks run llama_zero_shot --tier cpu

Hours for all runs of a tier: smoke 0.02 (6 runs, the continuation task alone), cpu 3.4 (2 cores; 3 for SmolLM2), gpu 5
(one H200-class GPU; 0.5 for SmolLM2), paper 150 (one GPU of 192 GB).

Data: smoke: docstrings of the installed packages. cpu and gpu: as llama_finetuning, and the Parquet files of the tasks
in the mirror that ECOSPA_DATA names (HellaSwag: 1,000 of its questions; BBH: the copy of lukaemon/bbh). paper: the Hub.

Expected result: SmolLM2 as it came above chance on ARC-easy, HellaSwag and PIQA; at 50 % with a short fine-tuning at
chance nearly everywhere, and 0 where answers are generated. With small models no difference from chance but at
`continuation`; there the dense model ahead, and methods in the order of their perplexities. At 7 billion parameters and
50 % all structured methods lose ten points and more on average. The smoke tier shows that everything works; its order
means nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from benchmarks.data import source as sources
from benchmarks.data.zero_shot import harness
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier, TierPlan
from benchmarks.experiments import llama_finetuning
from benchmarks.experiments.llama_finetuning import FineTuningProtocol, Procedure
from benchmarks.specs.pretrained import SMOLLM2
from benchmarks.specs.scale import Scale

NAME = "llama_zero_shot"
WITHOUT_TARGET = "dense"
METHODS = (WITHOUT_TARGET, "ecospa", "random_pairs", "surgeon", "llm_pruner", "sparsegpt")
CHOICES = "boolq piqa hellaswag winogrande arc_easy arc_challenge openbookqa"
GENERATED = "gsm8k bbh_cot_fewshot"
BEHAVIOR = "gsm8k bbh_fewshot_boolean_expressions bbh_fewshot_navigate bbh_fewshot_object_counting"
"""Of BBH the form without a chain of thought, whose answers are a word."""


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

    @property
    def asked(self) -> tuple[tuple[tuple[str, ...], int | None], ...]:
        """Tasks by the number of questions that each of them asks."""
        return ((self.tasks, self.limit),)


@dataclass(frozen=True)
class BehaviorProtocol(ZeroShotProtocol):
    """Tasks whose answers are generated in addition, each with the first `generated_limit` of its questions."""

    generated_tasks: str = ""
    generated_limit: int | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the harness's tasks, those that are generated last."""
        return (*self.harness_tasks.split(), *self.generated_tasks.split())

    @property
    def asked(self) -> tuple[tuple[tuple[str, ...], int | None], ...]:
        """Tasks by the number of questions that each of them asks."""
        chosen, generated = self.harness_tasks.split(), self.generated_tasks.split()
        return ((tuple(chosen), self.limit), (tuple(generated), self.generated_limit))


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


BEHAVIORS: dict[Tier, dict[str, Any]] = {
    "cpu": {"harness_tasks": CHOICES, "limit": 100, "continuations": 40, "generated_limit": 12},
    "gpu": {"harness_tasks": CHOICES, "limit": 500, "continuations": 400, "generated_limit": 64},
}
"""Fields of BehaviorProtocol by tier; its sizes are those of the tier."""
AT_ONCE = (WITHOUT_TARGET, "ecospa", "sparsegpt")
"""Methods whose SmolLM2 is judged without fine-tuning as well, at the largest size."""


def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
    """On every model the dense one once, the others at every size."""
    found: list[Cell] = []
    for subject in llama_finetuning.SUBJECTS[tier]:
        judged = _behavior_cells if subject.scale.model == SMOLLM2 else _cells
        found += judged(tier, methods, subject.scale)
    return tuple(found)


def _cells(tier: Tier, methods: tuple[MethodRef, ...], scale: Scale) -> list[Cell]:
    """Fine-tunings of llama_finetuning, judged by this tier's tasks as well."""
    own = TIERS[tier]
    protocol = ZeroShotProtocol(
        **asdict(scale.protocol),
        harness_tasks=own.harness_tasks,
        limit=own.limit,
        continuations=own.continuations,
    )
    judged = replace(scale, protocol=protocol)
    return [
        Cell(NAME, tier, method.name, judged.settings(method, target))
        for method in methods
        for target in _sizes(method, own.sizes)
    ]


def _behavior_cells(tier: Tier, methods: tuple[MethodRef, ...], scale: Scale) -> list[Cell]:
    """A model that knows something: cut at once, and fine-tuned; judged by what it chooses and what it generates."""
    protocol = BehaviorProtocol(**asdict(scale.protocol), **BEHAVIORS[tier], generated_tasks=BEHAVIOR)
    judged, sizes = replace(scale, protocol=protocol), TIERS[tier].sizes
    wanted: list[tuple[Procedure, MethodRef, float | None]] = [
        *(
            ("one-shot", method, size)
            for method in methods
            if method.name in AT_ONCE
            for size in _sizes(method, sizes[:1])
        ),
        *(("fine-tuned", method, size) for method in methods for size in _sizes(method, sizes)),
    ]
    return [
        Cell(NAME, tier, method.name, llama_finetuning.settings_of(judged, method, size, procedure), (0,))
        for procedure, method, size in wanted
    ]


def _sizes(method: MethodRef, sizes: tuple[float, ...]) -> tuple[float | None, ...]:
    return (None,) if method.name == WITHOUT_TARGET else sizes


def data_sources(tier: Tier) -> tuple[sources.BoundSource, ...]:
    """Return the sources that the fine-tuning needs, and the data of every task."""
    names = dict.fromkeys(TIERS[tier].harness_tasks.split())
    if tier in BEHAVIORS:
        names |= dict.fromkeys(BEHAVIOR.split())
    return (*llama_finetuning.data_sources(tier), *(harness.source(name) for name in names))


EXPERIMENT = Experiment(
    name=NAME,
    question="a fine-tuned LLaMA at 80 and 50 %: BoolQ, PIQA, HellaSwag, WinoGrande, ARC, OpenBookQA, through lm-eval",
    tiers={
        "smoke": TierPlan(seeds=(0,), hours=0.02, machine="any laptop, no network"),
        "cpu": TierPlan(seeds=(0, 1, 2), hours=3.4, machine="2 cores, 8 GB"),
        "gpu": TierPlan(seeds=(0, 1, 2), hours=5, machine="one H200-class GPU"),
        "paper": TierPlan(seeds=(0, 1, 2), hours=150, machine="one GPU of 192 GB", memory=140, data=14, disk=350),
    },
    methods=METHODS,
    cells=cells,
    sources=data_sources,
)
