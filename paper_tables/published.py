"""The literature's numbers, each with its source and how far it was checked; never mixed with measured ones.

Evidence tags: A abstract of the paper or of an earlier version; S second-hand summary of the paper; R public reviews of
the earlier version; V read in the cited paper or repository; M recalled, printed as "unverified"; I inferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Tag = Literal["A", "S", "R", "V", "M", "I"]
TAGS: tuple[Tag, ...] = get_args(Tag)

ECOSPA = "EcoSpa, arXiv 2511.11641, abstract"
GALORE = "GaLore, arXiv 2403.03507, Table 2"
SCALE = "SCALE, arXiv 2506.16659"
SLTRAIN = "SLTrain, arXiv 2406.02214"
MONARCH = "Monarch, arXiv 2204.00595, Table 2"
NN_PRUNING = "nn_pruning (block movement), README"
COFI = "CoFi, arXiv 2204.00408, README"
MONARCH_BERT = "Monarch, arXiv 2204.00595"

GPT2_WIKITEXT103 = "GPT-2 on WikiText-103"
LLAMA_C4 = "LLaMA on C4"
BERT_SQUAD = "BERT-base on SQuAD v1.1, fine-tuned"
BERT_GLUE = "BERT-base on GLUE, fine-tuned"
HEADLINE = "headline"


@dataclass(frozen=True)
class PublishedNumber:
    """One printed number: setting and method, metric and unit, value, source and evidence tag."""

    setting: str
    method: str
    metric: str
    value: float
    unit: str
    source: str
    tag: Tag

    @property
    def reference(self) -> str:
        """Return source and tag, with the word "unverified" where the number was only recalled."""
        return f"{self.source} [{self.tag}]" + (", unverified" if self.tag == "M" else "")


LLAMA_1B_MEMORY = PublishedNumber(HEADLINE, "EcoSpa LLaMA-1B", "memory / dense", 0.50, "", ECOSPA, "A")
LLAMA_1B_TIME = PublishedNumber(HEADLINE, "EcoSpa LLaMA-1B", "training time / dense", 0.79, "", ECOSPA, "A")
GPT2_MEDIUM_SIZE = PublishedNumber(HEADLINE, "EcoSpa GPT-2-Medium", "compression", 2.2, "times", ECOSPA, "A")
GPT2_MEDIUM_PERPLEXITY = PublishedNumber(
    HEADLINE, "EcoSpa GPT-2-Medium", "perplexity difference", -2.4, "per token", ECOSPA, "A"
)
INFERENCE_SPEED = PublishedNumber(HEADLINE, "EcoSpa", "inference speed / dense", 1.6, "times", ECOSPA, "A")

_C4_SIZES = ("60M", "130M", "350M", "1B")
_C4_ROWS: tuple[tuple[str, tuple[float, ...], str, Tag], ...] = (
    ("full rank, AdamW", (34.06, 25.08, 18.80, 15.56), GALORE, "V"),
    ("full rank, tuned Adam", (30.05, 23.13, 18.77, 15.79), SCALE, "V"),
    ("GaLore", (34.88, 25.36, 18.95, 15.64), GALORE, "V"),
    ("low rank", (78.18, 45.51, 37.41, 142.53), GALORE, "V"),
    ("LoRA", (34.99, 33.92, 25.58, 19.21), GALORE, "V"),
    ("ReLoRA", (37.04, 29.37, 29.08, 18.33), GALORE, "V"),
    ("SLTrain", (34.15, 26.04, 19.42, 16.14), SLTRAIN, "M"),
)
_GPT2_ROWS = (
    ("GPT-2-Small", 20.6, 124.0, 106.0),
    ("Monarch-GPT-2-Small", 20.7, 72.0, 51.0),
    ("GPT-2-Medium", 20.9, 355.0, 361.0),
    ("Monarch-GPT-2-Medium", 20.3, 165.0, 166.0),
)

# (share of the linear layers removed in percent, F1, speed-up); of two rows with one share the speed-up tells
_NN_PRUNING_SQUAD = (
    *((59, 88.72, 1.84), (65, 88.25, 1.98), (74, 87.71, 2.44), (73, 87.23, 2.60), (74, 86.69, 2.80)),
    (86, 85.52, 3.64),
)
_COFI_SQUAD = ((59.8, 89.1, 2.0), (92.4, 82.6, 8.7))
_COFI_GLUE = {"SST-2": (93.0, 90.4), "RTE": (72.6, 66.1), "CoLA": (60.4, 38.9), "MRPC": (86.8, 83.6)}
_COFI_SHARES = (60, 95)
_MONARCH_GLUE = (("BERT-base", 78.6), ("Monarch-BERT-base, 55M", 78.3))


def numbers() -> tuple[PublishedNumber, ...]:
    """Return every published number that this project prints."""
    headline = (LLAMA_1B_MEMORY, LLAMA_1B_TIME, GPT2_MEDIUM_SIZE, GPT2_MEDIUM_PERPLEXITY, INFERENCE_SPEED)
    return (*headline, *_gpt2(), *_c4(), *_bert())


def _gpt2() -> list[PublishedNumber]:
    metrics = (("perplexity", "per token"), ("parameters", "M"), ("forward FLOPs", "G"))
    return [
        PublishedNumber(GPT2_WIKITEXT103, row[0], metric, value, unit, MONARCH, "V")
        for row in _GPT2_ROWS
        for (metric, unit), value in zip(metrics, row[1:], strict=True)
    ]


def _c4() -> list[PublishedNumber]:
    return [
        PublishedNumber(LLAMA_C4, f"{method} {size}", "perplexity", value, "per token", source, tag)
        for method, values, source, tag in _C4_ROWS
        for size, value in zip(_C4_SIZES, values, strict=True)
    ]


def _bert() -> list[PublishedNumber]:
    rows = [("nn_pruning", NN_PRUNING, row) for row in _NN_PRUNING_SQUAD] + [("CoFi", COFI, row) for row in _COFI_SQUAD]
    squad = [("BERT-base", NN_PRUNING, "F1", 88.5, "%")]
    for method, source, (removed, f1, speed) in rows:
        named = f"{method}, {removed:g}% removed, {speed:g}x"
        squad += [(named, source, "F1", f1, "%"), (named, source, "inference speed / dense", speed, "times")]
    glue = [
        (f"CoFi, {removed}% removed", COFI, task, value, "%")
        for task, values in _COFI_GLUE.items()
        for removed, value in zip(_COFI_SHARES, values, strict=True)
    ]
    glue += [(method, MONARCH_BERT, "mean of the tasks", value, "%") for method, value in _MONARCH_GLUE]
    return [
        PublishedNumber(setting, method, metric, value, unit, source, "V")
        for setting, found in ((BERT_SQUAD, squad), (BERT_GLUE, glue))
        for method, source, metric, value, unit in found
    ]
