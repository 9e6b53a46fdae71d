"""The literature's numbers, each with its source and how far it was checked (TAGS); never mixed with measured ones."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from paper_tables.claims import published_c4

Tag = Literal["A", "S", "R", "V", "M", "I"]
TAGS: dict[Tag, str] = {
    "A": "abstract of the paper or of its earlier version",
    "S": "second-hand summary of the paper",
    "R": "public reviews of the earlier version",
    "V": "read in the source",
    "M": "recalled and unverified",
    "I": "inferred",
}
"""Evidence tag -> where what is tagged comes from."""

ECOSPA = "EcoSpa, arXiv 2511.11641, abstract"
TRANSPA = "TranSpa (the earlier version), OpenReview 9bwPESShgf, abstract"
MONARCH = "Monarch, arXiv 2204.00595, Table 2"
SURGEON = "The LLM Surgeon, arXiv 2312.17244, Table 1"
DISP = "DISP-LLM, arXiv 2410.11988, Table 1"
SLICEGPT = "SliceGPT, arXiv 2401.15024"
LATER = "comparison tables of later papers (DOT-MoE and others)"
WANDA = "Wanda, code's page (locuslab/wanda)"
LLM_PRUNER = "LLM-Pruner, arXiv 2305.11627, code's page"
FLAP = "FLAP, code's page"
DDP = "comparison table of DDP"

DEIT = "DeiT, arXiv 2012.12877"
SVITE = "S2ViTE, arXiv 2106.04533, as compared in DIMAP, Table 2b"
PIXELFLY = "Pixelated Butterfly, arXiv 2112.00029"

GPT2_WIKITEXT103 = "GPT-2 on WikiText-103"
LLAMA_C4 = "LLaMA on C4"
DEIT_IMAGENET = "DeiT on ImageNet-1k"
VIT_CIFAR10 = "ViT on CIFAR-10"
LLAMA_2_WIKITEXT2 = "Llama-2-7B on WikiText-2, 4096 tokens, dense 5.12"
LLAMA_2_MASKED = "Llama-2-7B on WikiText-2, masks, 50%"
LLAMA_1_SHORT = "LLaMA-1-7B on WikiText-2, 128 tokens, and zero-shot"
LLAMA_2_SHORT = "Llama-2-7B on WikiText-2, 128 tokens, dense 12.18"
LLAMA_1_LONG = "LLaMA-1-7B on WikiText-2, 2048 tokens, dense 5.67"
NN_PRUNING = "nn_pruning (block movement), README"
COFI = "CoFi, arXiv 2204.00408, README"
MONARCH_BERT = "Monarch, arXiv 2204.00595"
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
GPT2_EARLIER_SIZE = PublishedNumber(HEADLINE, "TranSpa GPT-2", "compression", 1.6, "times", TRANSPA, "A")
GPT2_EARLIER_PERPLEXITY = PublishedNumber(
    HEADLINE, "TranSpa GPT-2", "perplexity difference", -0.6, "per token", TRANSPA, "A"
)
INFERENCE_SPEED = PublishedNumber(HEADLINE, "EcoSpa", "inference speed / dense", 1.6, "times", ECOSPA, "A")

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

_Sized = tuple[tuple[str, float], ...]
_LLAMA_ROWS: tuple[tuple[str, str, _Sized, str, Tag], ...] = (
    (LLAMA_2_WIKITEXT2, "LLM Surgeon", (("80%", 6.18), ("70%", 7.83), ("60%", 10.39)), SURGEON, "M"),
    (LLAMA_2_WIKITEXT2, "LLM Surgeon", (("50%", 15.38),), SURGEON, "V"),
    (LLAMA_2_WIKITEXT2, "K-OBD", (("80%", 9.14), ("70%", 15.43), ("60%", 28.03), ("50%", 46.64)), SURGEON, "M"),
    (LLAMA_2_WIKITEXT2, "DISP-LLM", (("80%", 6.10), ("70%", 6.85), ("60%", 8.11)), f"{DISP}, by interpolation", "I"),
    (LLAMA_2_WIKITEXT2, "DISP-LLM", (("50%", 9.84),), DISP, "V"),
    (LLAMA_2_WIKITEXT2, "SliceGPT", (("80%", 6.64), ("70%", 8.12)), SLICEGPT, "M"),
    (LLAMA_2_WIKITEXT2, "SliceGPT", (("50%", 24.82),), LATER, "V"),
    (LLAMA_2_WIKITEXT2, "LLM-Pruner", (("50%", 31.05),), LATER, "V"),
    (LLAMA_2_WIKITEXT2, "ShortGPT", (("50%", 268.11),), LATER, "V"),
    (LLAMA_2_WIKITEXT2, "MoDeGPT", (("50%", 11.88),), LATER, "V"),
    (LLAMA_2_WIKITEXT2, "DOT-MoE, fine-tuned on 1.2 B tokens", (("50%", 7.99),), LATER, "V"),
    (LLAMA_2_MASKED, "magnitude", (("50%", 14.89), ("2:4", 54.59)), WANDA, "V"),
    (LLAMA_2_MASKED, "SparseGPT", (("50%", 6.51), ("2:4", 10.17)), WANDA, "V"),
    (LLAMA_2_MASKED, "Wanda", (("50%", 6.42), ("2:4", 11.02)), WANDA, "V"),
    (LLAMA_1_LONG, "MoDeGPT", (("80%", 6.92), ("60%", 12.43)), "LowRankArena", "V"),
    (LLAMA_1_LONG, "SVD-LLM", (("80%", 7.88), ("60%", 13.74)), "LowRankArena", "V"),
    (LLAMA_2_SHORT, "LoRAP", (("80%", 14.67), ("50%", 26.26)), DDP, "V"),
    (LLAMA_2_SHORT, "SlimLLM", (("80%", 15.28), ("50%", 27.29)), DDP, "V"),
    (LLAMA_2_SHORT, "DDP", (("80%", 14.39), ("50%", 26.34)), DDP, "V"),
)
_ZERO_SHOT = ("BoolQ", "PIQA", "HellaSwag", "WinoGrande", "ARC-e", "ARC-c", "OBQA", "mean of seven")
_LLAMA_1_ROWS: tuple[tuple[str, float, tuple[float, ...], str], ...] = (
    ("dense", 12.62, (73.18, 78.35, 72.99, 67.01, 67.45, 41.38, 42.40, 63.25), LLM_PRUNER),
    ("LLM-Pruner, element, 80%", 19.77, (59.39, 75.57, 65.34, 61.33, 59.18, 37.12, 39.80, 56.82), LLM_PRUNER),
    ("LLM-Pruner, element, LoRA, 80%", 17.37, (69.54, 76.44, 68.11, 65.11, 63.43, 37.88, 40.00, 60.07), LLM_PRUNER),
    ("Wanda-sp, 80%", 22.12, (71.25, 77.09, 72.77, 67.09, 71.09, 42.58, 41.60, 63.35), FLAP),
    ("FLAP, 80%", 14.62, (69.63, 76.82, 71.20, 68.35, 69.91, 39.25, 39.40, 62.08), FLAP),
    ("LLM-Pruner, 50%", 112.44, (52.57, 60.45, 35.86, 49.01, 32.83, 25.51, 34.80, 41.58), LLM_PRUNER),
    ("LLM-Pruner, LoRA, 50%", 38.12, (61.47, 68.82, 47.56, 55.09, 46.46, 28.24, 35.20, 48.98), LLM_PRUNER),
    ("FLAP, 50%", 31.80, (60.21, 67.52, 52.14, 57.54, 49.66, 29.95, 35.60, 50.37), FLAP),
    ("Wanda-sp, 50%", 366.43, (50.58, 55.01, 29.56, 51.78, 31.27, 23.04, 23.60, 37.83), FLAP),
    ("FLAP, 70%", 17.62, (), FLAP),
    ("Wanda-sp, 70%", 38.88, (), FLAP),
)
_LLAMA_2_HELLASWAG = (("LLM Surgeon", 40.3), ("SliceGPT", 33.0), ("ShortGPT", 43.7), ("DISP-LLM", 46.3))

# (share of the linear layers removed in percent, F1, speed-up); of two rows with one share the speed-up tells
_NN_PRUNING_SQUAD = (
    *((59, 88.72, 1.84), (65, 88.25, 1.98), (74, 87.71, 2.44), (73, 87.23, 2.60), (74, 86.69, 2.80)),
    (86, 85.52, 3.64),
)
_COFI_SQUAD = ((59.8, 89.1, 2.0), (92.4, 82.6, 8.7))
_COFI_GLUE = {"SST-2": (93.0, 90.4), "RTE": (72.6, 66.1), "CoLA": (60.4, 38.9), "MRPC": (86.8, 83.6)}
_COFI_SHARES = (60, 95)
_MONARCH_GLUE = (("BERT-base", 78.6), ("Monarch-BERT-base, 55M", 78.3))


def meanings(tags: Collection[str]) -> str:
    """Return what these tags mean, "A abstract of ..., V read in the source", in the order of TAGS."""
    return ", ".join(f"{tag} {text}" for tag, text in TAGS.items() if tag in tags)


def numbers() -> tuple[PublishedNumber, ...]:
    """Return every published number that this project prints."""
    headline = (LLAMA_1B_MEMORY, LLAMA_1B_TIME, GPT2_MEDIUM_SIZE, GPT2_MEDIUM_PERPLEXITY, INFERENCE_SPEED)
    earlier = (GPT2_EARLIER_SIZE, GPT2_EARLIER_PERPLEXITY)
    return (*headline, *earlier, *_gpt2(), *_c4(), *_images(), *_compressed_llamas(), *_bert())


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
        for method, values, source, tag in published_c4.ROWS
        for size, value in zip(published_c4.SIZES, values, strict=True)
        if value is not None
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


def _compressed_llamas() -> list[PublishedNumber]:
    made = [
        PublishedNumber(setting, f"{method} {size}", "perplexity", value, "per token", source, tag)
        for setting, method, values, source, tag in _LLAMA_ROWS
        for size, value in values
    ]
    for method, perplexity, scores, source in _LLAMA_1_ROWS:
        made.append(PublishedNumber(LLAMA_1_SHORT, method, "perplexity", perplexity, "per token", source, "V"))
        named = zip(_ZERO_SHOT, scores, strict=True) if scores else ()
        made += [PublishedNumber(LLAMA_1_SHORT, method, task, score, "%", source, "V") for task, score in named]
    made += [
        PublishedNumber(LLAMA_2_WIKITEXT2, f"{method} 50%", "HellaSwag, acc_norm", score, "%", LATER, "V")
        for method, score in _LLAMA_2_HELLASWAG
    ]
    return made


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
