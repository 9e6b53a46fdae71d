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
TRANSPA = "TranSpa (the earlier version), OpenReview 9bwPESShgf, abstract"
GALORE = "GaLore, arXiv 2403.03507, Table 2"
SCALE = "SCALE, arXiv 2506.16659"
SLTRAIN = "SLTrain, arXiv 2406.02214"
MONARCH = "Monarch, arXiv 2204.00595, Table 2"
PIXELFLY = "Pixelated Butterfly, arXiv 2112.00029"

GPT2_WIKITEXT103 = "GPT-2 on WikiText-103"
LLAMA_C4 = "LLaMA on C4"
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
GPT2_EARLIER_SIZE = PublishedNumber(HEADLINE, "TranSpa GPT-2", "compression", 1.6, "times", TRANSPA, "A")
GPT2_EARLIER_PERPLEXITY = PublishedNumber(
    HEADLINE, "TranSpa GPT-2", "perplexity difference", -0.6, "per token", TRANSPA, "A"
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
_GPT2_ROWS: tuple[tuple[str, tuple[float, float, float], str, Tag], ...] = (
    ("GPT-2-Small", (20.6, 124.0, 106.0), MONARCH, "V"),
    ("Monarch-GPT-2-Small", (20.7, 72.0, 51.0), MONARCH, "V"),
    ("GPT-2-Medium", (20.9, 355.0, 361.0), MONARCH, "V"),
    ("Monarch-GPT-2-Medium", (20.3, 165.0, 166.0), MONARCH, "V"),
    ("GPT-2-Small", (22.2, 117.0, 48.4), PIXELFLY, "M"),
    ("Pixelfly-GPT-2-Small", (22.5, 68.0, 18.5), PIXELFLY, "M"),
    ("GPT-2-Medium", (20.9, 345.0, 168.0), PIXELFLY, "M"),
    ("Pixelfly-GPT-2-Medium", (21.0, 203.0, 27.0), PIXELFLY, "M"),
)


def numbers() -> tuple[PublishedNumber, ...]:
    """Return every published number that this project prints."""
    headline = (LLAMA_1B_MEMORY, LLAMA_1B_TIME, GPT2_MEDIUM_SIZE, GPT2_MEDIUM_PERPLEXITY, INFERENCE_SPEED)
    earlier = (GPT2_EARLIER_SIZE, GPT2_EARLIER_PERPLEXITY)
    return (*headline, *earlier, *_gpt2(), *_c4())


def _gpt2() -> list[PublishedNumber]:
    metrics = (("perplexity", "per token"), ("parameters", "M"), ("forward FLOPs", "G"))
    return [
        PublishedNumber(GPT2_WIKITEXT103, method, metric, value, unit, source, tag)
        for method, values, source, tag in _GPT2_ROWS
        for (metric, unit), value in zip(metrics, values, strict=True)
    ]


def _c4() -> list[PublishedNumber]:
    return [
        PublishedNumber(LLAMA_C4, f"{method} {size}", "perplexity", value, "per token", source, tag)
        for method, values, source, tag in _C4_ROWS
        for size, value in zip(_C4_SIZES, values, strict=True)
    ]
