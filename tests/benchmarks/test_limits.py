"""Cutting one part of a trained model: which pairs, which indices, where it breaks, and the whole run at toy size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ecospa
from benchmarks import registry
from benchmarks.data.source import MissingSourceError
from benchmarks.experiment import Cell, MethodRef, Run
from benchmarks.experiments import sparsity_limits
from benchmarks.procedures.width_sensitivity import break_point, narrowing_plan, part_of, recover
from benchmarks.specs.training import TrainingSpec
from ecospa.sparsifier import pair_scores
from tests.baselines.runs import tiny_gpt2
from tests.benchmarks.tiny_runs import run_context, use_tiny_text

TRAINING = TrainingSpec(steps=4, batch_size=4, learning_rate=5e-3, micro_batch_size=4, warmup_steps=2)


def names(model: object, part: str, blocks: list[str]) -> list[str]:
    return [pair.name for pair in part_of(ecospa.coupled_pairs(model), part, blocks)]


def test_parts_are_kinds_and_thirds() -> None:
    model = tiny_gpt2()
    blocks = ["transformer.h.0", "transformer.h.1"]
    assert names(model, "vo", blocks) == ["transformer.h.0.attn.vo", "transformer.h.1.attn.vo"]
    assert names(model, "early", blocks) == [f"transformer.h.0.{kind}" for kind in ("attn.qk", "attn.vo", "mlp.ffn")]
    six = [f"transformer.h.{number}" for number in range(6)]
    assert len(names(model, "early", six)) == 6 and names(model, "middle", six) == names(model, "late", six) == []
    assert names(model, "late", ["x", "y", "z", "transformer.h.0", "transformer.h.1"]) == [
        f"transformer.h.1.{kind}" for kind in ("attn.qk", "attn.vo", "mlp.ffn")
    ]
    with pytest.raises(ValueError, match=r"part is 'head'; choose one of qk, vo, ffn, early, middle, late"):
        part_of((), "head", [])


def test_a_plan_keeps_the_best_indices_of_the_part_and_all_of_the_rest() -> None:
    model = tiny_gpt2()
    plan = narrowing_plan(model, "ffn", 0.3)
    assert set(plan.kept) == {"transformer.h.0.mlp.ffn", "transformer.h.1.mlp.ffn"}
    for pair in ecospa.coupled_pairs(model):
        if pair.kind is ecospa.PairKind.FFN:
            best = pair_scores(model, pair)[0].topk(38).indices.sort().values  # round(0.3 * 128)
            assert torch.equal(plan.kept[pair.name][0], best)
    assert narrowing_plan(model, "qk", 0.01).widths_after()["transformer.h.0.attn.qk"] == 1
    assert narrowing_plan(model, "qk", 1.0).kept == {}


@pytest.mark.parametrize(
    ("scores", "limit", "width"),
    [
        ((10.0, 10.0, 11.0), 10.5, 0.75),  # half way between 1.0 and 0.5
        ((10.0, 10.2, 10.6), 10.5, 0.5 + 0.5 * 0.25),
        ((10.0, 10.1, 10.2), 10.5, None),
        ((11.0, 12.0, 13.0), 10.5, 1.5),
        ((10.0, 20.0, 10.0), 15.0, 1.25),  # the first crossing
        ((10.0, 10.5, 10.5), 10.5, None),  # the limit itself is not passed
    ],
)
def test_the_break_point_lies_between_the_widths_around_it(
    scores: tuple[float, ...], limit: float, width: float | None
) -> None:
    assert break_point((1.5, 1.0, 0.5), scores, limit) == pytest.approx(width)


def test_recovery_is_training_and_repeats_itself() -> None:
    text = torch.arange(1, 25).repeat(6, 1)[:, :12]
    models = [tiny_gpt2(), tiny_gpt2(), tiny_gpt2()]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        recover(model, torch.randint(1, 31, (40, 12), generator=torch.Generator().manual_seed(5)), TRAINING, seed)
    first, again, other = (model.transformer.h[0].mlp.c_fc.weight for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)
    learner = tiny_gpt2()
    before = float(learner(input_ids=text, labels=text).loss.detach())
    recover(learner, text, replace(TRAINING, steps=20), 0)
    assert float(learner(input_ids=text, labels=text).loss.detach()) < 0.9 * before


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    subject = sparsity_limits.SUBJECTS["smoke"]
    model = replace(
        subject.model,
        layers=3, width=32, vocabulary=300, positions=16,
        pretraining=replace(subject.model.pretraining, steps=30, batch_size=4, micro_batch_size=4, warmup_steps=2),
    )  # fmt: skip
    protocol = replace(subject.protocol, tokenizer="bpe-300", sequence_length=16, stride=15)
    small = replace(subject, model=model, protocol=protocol, recovery=TRAINING)
    monkeypatch.setattr(sparsity_limits, "SUBJECTS", {"smoke": small})
    monkeypatch.setattr(sparsity_limits, "WIDTHS", (0.8, 0.5, 0.1))


@pytest.mark.usefixtures("toy")
def test_a_run_measures_every_width_on_one_trained_model(tmp_path: Path) -> None:
    cells = sparsity_limits.cells("smoke", (MethodRef("ffn"), MethodRef("late")))
    assert [cell.label for cell in cells] == ["ffn", "late"]
    place = run_context(tmp_path)
    ffn, late = (sparsity_limits.EXPERIMENT.execute(Run(cell, 0), place) for cell in cells)
    assert len([path for path in (tmp_path / "trained").iterdir() if path.is_dir()]) == 1
    rows = ffn.payload["curve"]
    assert [row["width"] for row in rows] == [1.0, *sparsity_limits.WIDTHS]
    assert rows[0]["block_share"] == 1.0 and rows[-1]["block_share"] < rows[1]["block_share"] < 1.0
    assert rows[0]["perplexity_cut"] == ffn.metrics["perplexity_dense"].value == late.metrics["perplexity_dense"].value
    assert rows[0]["perplexity_cut"] < 0.7 * 300  # it was trained
    assert rows[-1]["perplexity_cut"] != rows[0]["perplexity_cut"]
    assert ffn.data_fingerprint == late.data_fingerprint
    again = sparsity_limits.EXPERIMENT.execute(Run(cells[0], 0), place)
    assert again.payload == ffn.payload
    other = sparsity_limits.EXPERIMENT.execute(Run(cells[0], 1), place)
    assert other.metrics["perplexity_dense"].value != ffn.metrics["perplexity_dense"].value
    assert other.data_fingerprint == ffn.data_fingerprint  # or its seeds could not share a table


def test_missing_text_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECOSPA_DATA", raising=False)
    cell: Cell = registry.experiment("sparsity_limits").cells("cpu", (MethodRef("qk"),))[0]
    with pytest.raises(MissingSourceError, match="opendocs"):
        sparsity_limits.EXPERIMENT.execute(Run(cell, 0), run_context(tmp_path))
