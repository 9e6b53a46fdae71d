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

DEIT = "DeiT, arXiv 2012.12877"
SVITE = "S2ViTE, arXiv 2106.04533, as compared in DIMAP, Table 2b"

GPT2_WIKITEXT103 = "GPT-2 on WikiText-103"
LLAMA_C4 = "LLaMA on C4"
DEIT_IMAGENET = "DeiT on ImageNet-1k"
VIT_CIFAR10 = "ViT on CIFAR-10"
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
# top-1 (%), parameters (M) and forward FLOPs (G); None where the source has none
_DEIT_ROWS: tuple[tuple[str, float, float | None, float | None, str, Tag], ...] = (
    ("DeiT-T", 72.2, 5.7, None, DEIT, "V"),
    ("DeiT-S", 79.8, 22.1, 4.6, DEIT, "V"),
    ("DeiT-B", 81.8, 86.6, 17.5, DEIT, "V"),
    ("S2ViTE-T", 70.12, None, 0.95, "S2ViTE, arXiv 2106.04533", "V"),
    ("SViTE-S, unstructured", 80.26, 13.3, 2.9, SVITE, "V"),
    ("S2ViTE-S", 79.22, 14.6, 3.1, SVITE, "V"),
    ("SViTE-B, unstructured", 81.56, 52.0, 10.8, SVITE, "V"),
    ("S2ViTE-B", 82.22, 56.8, 11.7, SVITE, "V"),
    ("SPViT-T", 70.7, 4.9, 1.0, "SPViT, its repository", "V"),
    ("SPViT-S", 78.3, 16.4, 3.3, "SPViT, its repository", "V"),
    ("SPViT-B", 81.5, 46.2, 8.3, "SPViT, its repository", "V"),
    ("WDPruning-T", 70.34, 3.5, 0.7, "WDPruning", "M"),
    ("WDPruning-S", 78.38, 13.3, 2.6, "WDPruning, as compared in HiAP", "V"),
    ("SCOP-S", 77.5, None, 2.6, "SCOP, as compared in UVC", "V"),
    ("UVC-S", 78.82, None, 2.32, "UVC, its repository", "V"),
    ("UVC-B", 80.6, None, 8.0, "UVC, its repository", "V"),
    ("ViT-Slim-S, 51%", 77.94, 11.4, 2.3, "ViT-Slim, Table 4", "V"),
    ("ViT-Slim-S, 61%", 79.20, 13.5, 2.8, "ViT-Slim, Table 4", "V"),
    ("ViT-Slim-B", 82.4, 52.6, 10.6, "ViT-Slim, Table 4", "V"),
    ("GOHSP-S, 50%", 79.86, 11.1, 2.8, "GOHSP, as compared in HiAP", "V"),
    ("GOHSP-S, 65%", 79.98, 14.4, 3.0, "GOHSP, as compared in HiAP", "V"),
    ("VTP-B", 80.7, 48.0, 10.0, "VTP, as compared in DIMAP", "V"),
    ("ComCAT-S, 44% fewer parameters", 79.58, None, None, "ComCAT, arXiv 2305.17235, its repository", "V"),
    ("ComCAT-B, 61% fewer parameters", 82.28, None, None, "ComCAT, arXiv 2305.17235, its repository", "V"),
)
_CIFAR_ROWS = (
    ("dense, six layers of ViT-Tiny, 200 epochs", 90.50),
    ("HiAP, a third of the operations removed", 87.56),
    ("uniform, a third of the operations removed", 86.63),
)


def numbers() -> tuple[PublishedNumber, ...]:
    """Return every published number that this project prints."""
    headline = (LLAMA_1B_MEMORY, LLAMA_1B_TIME, GPT2_MEDIUM_SIZE, GPT2_MEDIUM_PERPLEXITY, INFERENCE_SPEED)
    return (*headline, *_gpt2(), *_c4(), *_images())


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


def _images() -> list[PublishedNumber]:
    metrics = (("top-1", "%"), ("parameters", "M"), ("forward FLOPs", "G"))
    return [
        *(
            PublishedNumber(DEIT_IMAGENET, method, metric, value, unit, source, tag)
            for method, *values, source, tag in _DEIT_ROWS
            for (metric, unit), value in zip(metrics, values, strict=True)
            if value is not None
        ),
        *(PublishedNumber(VIT_CIFAR10, method, "top-1", value, "%", "HiAP", "V") for method, value in _CIFAR_ROWS),
    ]
