"""Tier paper from its data to its record, with nothing swapped but sizes and the place of the data.

Every source is a folder of Parquet files with the Hub's names and columns, the weights of others are tiny models saved
as the Hub has them, and a CPU stands for the GPU. Methods, recipes, precisions and protocols are those of the tier.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from benchmarks import registry
from benchmarks.data.text.streamed import StreamedDataSpec
from benchmarks.data.text.tokenizer import train_tokenizer
from benchmarks.data.text.wordpiece import train_wordpiece
from benchmarks.execution.recording import carry_out
from benchmarks.experiment import Cell, MethodRef, Run
from benchmarks.experiments.llama_zero_shot import ZeroShotProtocol
from benchmarks.specs.encoder import EncoderSpec, SpanSpec
from benchmarks.specs.language import ModelSpec
from benchmarks.specs.pretrained import FoundationSpec
from benchmarks.specs.vision import VisionModelSpec
from tests.benchmarks.tiny_images import mirror
from tests.benchmarks.tiny_runs import ORIGIN, corpus, run_context

datasets = pytest.importorskip("datasets")
LENGTH, VOCABULARY, STEPS = 32, 300, 8
LLAMA, BERT = "models/meta-llama__Llama-2-7b-hf", "models/google-bert__bert-base-uncased"
PAPER = [name for name, experiment in registry.experiments().items() if "paper" in experiment.tiers]
QUESTIONS = [
    {"id": str(n), "title": "t", "context": f"Person {n} lives in {place} now.", "question": f"where is person {n} ?"}
    | {"answers": {"text": [place], "answer_start": [len(f"Person {n} lives in ")]}}
    for n in range(24)
    for place in [("london", "rome", "cairo")[n % 3]]
]
BOOKS = [
    {"id": str(n), "question_stem": "the model is", "answerKey": "AB"[n % 2]}
    | {"choices": {"text": ["small", "large", "even", "odd"], "label": ["A", "B", "C", "D"]}}
    for n in range(6)
]
SUMS = [{"question": f"{n} and {n} ?", "answer": f"{n}+{n} #### {2 * n}"} for n in range(8)]


def labelled(columns: tuple[str, ...], numbers: bool) -> list[dict[str, Any]]:
    """Rows of a task of GLUE."""
    words = ("dreadful", "wonderful")
    texts = [dict.fromkeys(columns, f"film {n % 5} was {words[n % 2]}") for n in range(32)]
    return [row | {"label": float(n % 2) * 5 if numbers else n % 2} for n, row in enumerate(texts)]


def write(folder: Path, splits: tuple[str, ...], rows: list[dict[str, Any]], **features: Any) -> None:
    """The same rows as every split of a data set."""
    folder.mkdir(parents=True)
    made = datasets.Dataset.from_list(rows)
    for column, kind in features.items():
        made = made.cast_column(column, kind)
    for split in splits:
        made.to_parquet(folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets, tokenizers and models of the Hub, all tiny."""
    place = tmp_path_factory.mktemp("hub")
    texts = [{"text": text} for text in corpus().train]
    lines = [("", f" = Article {n} = \n", "", f"{' '.join(corpus().train[n:])}\n") for n in range(8)]
    articles = [{"text": line} for article in lines for line in article]
    for configuration in ("wikitext-103-raw-v1", "wikitext-2-raw-v1"):
        write(place / "Salesforce__wikitext" / configuration, ("train", "validation", "test"), articles)
    write(place / "allenai__c4" / "en", ("train", "validation"), texts)
    write(place / "rajpurkar__squad" / "plain_text", ("train", "validation"), QUESTIONS)
    for task in ("sst2", "cola", "mrpc", "rte", "stsb"):
        columns = ("sentence",) if task in ("sst2", "cola") else ("sentence1", "sentence2")
        kinds = {} if task == "stsb" else {"label": datasets.ClassLabel(names=["no", "yes"])}
        write(place / "nyu-mll__glue" / task, ("train", "validation"), labelled(columns, task == "stsb"), **kinds)
    mirror(place / "ILSVRC__imagenet-1k/default", "image", {"train": 24, "validation": 24}, "JPEG")
    mirror(place / "uoft-cs__cifar10/plain_text", "img", {"train": 24, "test": 24}, "PNG")
    write(place / "allenai__openbookqa" / "main", ("validation", "test"), BOOKS)
    write(place / "openai__gsm8k" / "main", ("train", "test"), SUMS)
    words = train_tokenizer(corpus().train, VOCABULARY)
    for name in ("tokenizers/gpt2", "tokenizers/t5-base", LLAMA):
        words.save_pretrained(place / name)
    spoken = [f"{row['context']} {row['question']} film was dreadful wonderful" for row in QUESTIONS]
    train_wordpiece(spoken, VOCABULARY).save_pretrained(place / "tokenizers/bert-base-uncased")
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    long = {"intermediate_size": 64, "max_position_embeddings": 512}
    LlamaForCausalLM(LlamaConfig(**sizes, **long)).save_pretrained(place / LLAMA)
    BertModel(BertConfig(**{**sizes, **long, "intermediate_size": 128})).save_pretrained(place / BERT)
    return place


def small(cell: Cell) -> Cell:
    """A cell with its sizes swapped, and the device; everything else as in the tier."""
    own = cell.settings
    steps = {"steps": STEPS, "warmup_steps": 2, "batch_size": 4, "micro_batch_size": 2} if own.training.steps else {}
    ends = {"total_steps": STEPS, "start_step": 2, "end_step": 6, "interval": 2} if own.training.steps else {}
    swapped = replace(
        own,
        model=_model(own.model),
        data=_data(own.data),
        protocol=_protocol(own.protocol),
        training=replace(own.training, device="cpu", **steps),
        shrink=replace(own.shrink, width_multiple=2, **ends),
    )
    return replace(cell, settings=swapped)


def _model(spec: Any) -> Any:
    if isinstance(spec, FoundationSpec):
        return spec
    if isinstance(spec, VisionModelSpec):
        return replace(spec, layers=2, width=32, heads=4, size=32, patch=8)
    sizes = {"layers": 2, "width": 32, "heads": 4, "vocabulary": VOCABULARY}
    if isinstance(spec, EncoderSpec):
        return replace(spec, **sizes, positions=512)
    assert isinstance(spec, ModelSpec)
    return replace(spec, **sizes, positions=LENGTH)


def _data(spec: Any) -> Any:
    return replace(spec, train_tokens=400, evaluation_tokens=100) if isinstance(spec, StreamedDataSpec) else spec


def _protocol(spec: Any) -> Any:
    if not hasattr(spec, "sequence_length"):
        return spec
    sizes: dict[str, Any] = {"sequence_length": LENGTH}
    if isinstance(spec, SpanSpec):
        sizes |= {"stride": 8, "question_tokens": 12}
    elif hasattr(spec, "stride"):
        sizes |= {"stride": LENGTH - 1}
    if isinstance(spec, ZeroShotProtocol):  # one task that is chosen from, one that is generated
        sizes |= {"harness_tasks": "openbookqa gsm8k", "limit": 2, "continuations": 4}
    return replace(spec, **sizes)


def chosen(name: str) -> list[Cell]:
    """The cells of EcoSpa at the smallest size: one per kind of data and procedure."""
    experiment = registry.experiment(name)
    found = experiment.cells("paper", (MethodRef("ecospa"),))
    kinds: dict[tuple[str, str], Cell] = {}
    for cell in sorted(found, key=lambda cell: cell.settings.target):
        own = cell.settings
        kinds.setdefault((own.data.configuration, getattr(own.protocol, "procedure", "")), cell)
    return list(kinds.values())


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=f"{name}-{number}") for name in PAPER for number, cell in enumerate(chosen(name))]
)
def test_a_run_of_tier_paper_reaches_its_record(
    cell: Cell, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECOSPA_DATA", str(hub))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)  # seconds, at the end of every stream
    tiny = small(cell)
    record = carry_out(Run(tiny, 0), run_context(tmp_path / "work"), ORIGIN)
    assert record.status == "finished", record.error
    assert record.config["training"]["precision"] == "bf16" and record.tier == "paper"
    first, last = record.plan_history[0], record.plan_history[-1]
    counted = "block_parameters" if cell.settings.shrink.target_scope == "blocks" else "parameters"
    assert getattr(last, counted) / getattr(first, counted) == pytest.approx(cell.settings.target, abs=0.1)
    assert all(np.isfinite(metric.value) for metric in record.metrics.values())
