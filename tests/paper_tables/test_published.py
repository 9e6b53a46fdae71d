"""Every number of the literature says where it is from and how far it was checked."""

from __future__ import annotations

import re

from paper_tables.claims.published import (
    DEIT_IMAGENET,
    GPT2_WIKITEXT103,
    HEADLINE,
    LLAMA_1_SHORT,
    LLAMA_2_MASKED,
    LLAMA_2_WIKITEXT2,
    LLAMA_C4,
    TAGS,
    VIT_CIFAR10,
    numbers,
)
from paper_tables.claims.statements import claims
from paper_tables.tables import claims as claims_table
from paper_tables.tables import published_numbers


def test_every_number_has_source_and_tag() -> None:
    for number in numbers():
        assert number.source and number.method and number.metric
        assert number.tag in TAGS
        assert f"[{number.tag}]" in number.reference


def test_no_number_is_printed_twice() -> None:
    keys = [(number.setting, number.method, number.metric, number.source) for number in numbers()]
    assert len(set(keys)) == len(keys)


def test_what_was_only_recalled_is_called_unverified() -> None:
    recalled = [number for number in numbers() if number.tag == "M"]
    assert recalled and all(number.reference.endswith("unverified") for number in recalled)
    assert not any("unverified" in number.reference for number in numbers() if number.tag != "M")


def test_the_tables_that_the_paper_stands_beside_are_there() -> None:
    found = {(number.setting, number.method, number.metric): number.value for number in numbers()}
    assert found[GPT2_WIKITEXT103, "GPT-2-Medium", "perplexity"] == 20.9
    assert found[GPT2_WIKITEXT103, "Monarch-GPT-2-Medium", "parameters"] == 165.0
    assert found[LLAMA_C4, "LoRA 1B", "perplexity"] == 19.21
    assert found[LLAMA_C4, "full rank, tuned Adam 60M", "perplexity"] == 30.05
    assert found[LLAMA_C4, "RACS 1B", "perplexity"] == 13.52 and (LLAMA_C4, "SUMO 60M", "perplexity") not in found
    assert found[HEADLINE, "EcoSpa GPT-2-Medium", "perplexity difference"] == -2.4
    assert found[DEIT_IMAGENET, "DeiT-S", "top-1"] == 79.8 and found[DEIT_IMAGENET, "DeiT-B", "parameters"] == 86.6
    assert found[DEIT_IMAGENET, "S2ViTE-S", "forward FLOPs"] == 3.1
    assert (DEIT_IMAGENET, "ComCAT-S, 44% fewer parameters", "parameters") not in found
    assert found[VIT_CIFAR10, "dense, six layers of ViT-Tiny, 200 epochs", "top-1"] == 90.5


def test_one_method_has_a_row_per_source_of_perplexity_on_c4() -> None:
    found = [number for number in numbers() if number.setting == LLAMA_C4]
    muon = {number.source: number.value for number in found if number.method == "Muon 1B"}
    assert len(muon) == 3 and max(muon.values()) - min(muon.values()) > 2  # more than most gains that are claimed
    assert {number.method.split()[0] for number in found} >= {"APOLLO", "Fira", "CoLA", "SLTrain", "SCALE", "Alice"}


def test_compressed_llamas_of_different_protocols_are_different_settings() -> None:
    found = {(number.setting, number.method, number.metric): number for number in numbers()}
    assert found[LLAMA_2_WIKITEXT2, "LLM Surgeon 50%", "perplexity"].value == 15.38
    assert found[LLAMA_2_WIKITEXT2, "K-OBD 80%", "perplexity"].tag == "M"
    assert found[LLAMA_2_MASKED, "SparseGPT 2:4", "perplexity"].value == 10.17
    assert found[LLAMA_1_SHORT, "dense", "perplexity"].value == 12.62
    assert found[LLAMA_1_SHORT, "FLAP, 50%", "WinoGrande"].value == 57.54
    means = {method: n.value for (setting, method, metric), n in found.items() if metric == "mean of seven"}
    for method, mean in means.items():
        scores = [
            n.value
            for (setting, name, metric), n in found.items()
            if (setting, name) == (LLAMA_1_SHORT, method) and metric not in ("perplexity", "mean of seven")
        ]
        assert len(scores) == 7 and abs(sum(scores) / 7 - mean) < 0.02, method


def test_every_tag_that_occurs_is_explained() -> None:
    for item, sources in (
        (published_numbers.ITEM, [number.reference for number in numbers()]),
        (claims_table.ITEM, [claim.source for claim in claims()]),
    ):
        tags = {tag for source in sources for tag in re.findall(r"\[([A-Z])\]", source)}
        assert tags and all(f"{tag} {TAGS[tag]}" in item.caption for tag in tags)  # type: ignore[index]
