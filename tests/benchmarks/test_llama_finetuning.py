"""Fine-tuning a trained LLaMA, or cutting it at once: one model, one text, two procedures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import registry
from benchmarks.data import source as sources
from benchmarks.data.sources import hub_weights
from benchmarks.data.text import tokenized
from benchmarks.experiment import MethodRef, Run, RunResult
from benchmarks.experiments import llama_finetuning
from benchmarks.experiments.llama_finetuning import METHODS, SIZES, FineTuningProtocol, Subject, fine_tuning
from benchmarks.pretrained import loading
from benchmarks.specs import pretrained
from benchmarks.specs.language import DataSpec
from benchmarks.specs.pretrained import FoundationSpec
from benchmarks.specs.training import TrainingSpec
from tests.benchmarks.test_runner import interrupt_at
from tests.benchmarks.tiny_runs import run_context, use_tiny_text

STEPS = 12


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A LLaMA of two layers, trained for some steps on a tiny text, and fine-tuned on it."""
    use_tiny_text(monkeypatch)
    own = pretrained.LLAMAS["smoke"].pretraining
    assert own is not None
    small = replace(
        own,
        architecture=replace(own.architecture, layers=2, width=32, vocabulary=300, positions=16),
        training=replace(own.training, steps=10, batch_size=4, micro_batch_size=4, warmup_steps=2),
        protocol=replace(own.protocol, tokenizer="bpe-300", sequence_length=16, stride=15),
    )
    scale = fine_tuning(
        FoundationSpec("llama", small),
        DataSpec("tiny", "default"),
        FineTuningProtocol("llama", sequence_length=16, stride=15, split="validation"),
        TrainingSpec(steps=STEPS, batch_size=4, learning_rate=3e-3, micro_batch_size=4, warmup_steps=2),
        width_multiple=2,
    )
    monkeypatch.setattr(llama_finetuning, "SUBJECTS", {"smoke": (Subject(scale, (0.5,), (0.5,)),)})


def runs(*methods: str, procedure: str, seed: int = 0) -> list[Run]:
    """The runs of one procedure."""
    cells = llama_finetuning.cells("smoke", tuple(MethodRef(name) for name in methods))
    return [Run(cell, seed) for cell in cells if cell.settings.protocol.procedure == procedure]


def value(outcome: RunResult, name: str) -> float:
    return outcome.metrics[name].value


@pytest.mark.parametrize("procedure", ["one-shot", pytest.param("fine-tuned", marks=pytest.mark.slow)])
def test_every_method_lands_in_both_procedures(procedure: str, tmp_path: Path) -> None:
    place = run_context(tmp_path)
    outcomes = {
        run.cell.method: llama_finetuning.EXPERIMENT.execute(run, place) for run in runs(*METHODS, procedure=procedure)
    }
    assert set(outcomes) == set(METHODS)
    assert len([path for path in (tmp_path / "trained").iterdir() if path.is_dir()]) == 1  # trained once
    assert len({outcome.data_fingerprint for outcome in outcomes.values()}) == 1
    whole = value(outcomes["dense"], "block_parameters")
    for name, outcome in outcomes.items():
        left = value(outcome, "block_parameters_nonzero") / whole
        assert left == 1 if name == "dense" else 0.5 <= left <= 0.6, name
        masked = value(outcome, "block_parameters") == whole
        assert masked == (name in ("dense", "sparsegpt", "wanda", "magnitude")), name
    steps = {outcome.loss_curve[-1][0] if outcome.loss_curve else 0 for outcome in outcomes.values()}
    assert steps == {STEPS if procedure == "fine-tuned" else 0}


def test_the_dense_model_of_the_one_shot_procedure_is_the_trained_one_and_fine_tuning_improves_it(
    tmp_path: Path,
) -> None:
    place = run_context(tmp_path)
    (as_it_is,), (tuned,) = (
        [llama_finetuning.EXPERIMENT.execute(run, place) for run in runs("dense", procedure=procedure)]
        for procedure in ("one-shot", "fine-tuned")
    )
    spec = llama_finetuning.SUBJECTS["smoke"][0].scale.model
    foundation = loading.find(spec, "smoke", place)
    assert spec.pretraining is not None
    text = tokenized.prepare(spec.pretraining.data, spec.pretraining.protocol, "smoke", tmp_path)
    tokens = torch.from_numpy(text.evaluation)
    losses = []
    model = foundation.build().eval()
    for start in range(0, len(tokens) - 1, 15):  # windows of 16 that share one token, as the protocol says
        window = tokens[start : start + 16][None]
        if window.shape[1] > 1:
            losses.append(model(input_ids=window, labels=window).loss.item() * (window.shape[1] - 1))
    assert value(as_it_is, "eval_loss") == pytest.approx(sum(losses) / (len(tokens) - 1), rel=1e-4)
    assert value(tuned, "eval_loss") < value(as_it_is, "eval_loss")


def test_the_tokenizer_kept_beside_the_weights_is_the_one_they_were_trained_with(tmp_path: Path) -> None:
    spec = llama_finetuning.SUBJECTS["smoke"][0].scale.model
    place = run_context(tmp_path)
    foundation = loading.find(spec, "smoke", place)
    assert spec.pretraining is not None
    own = tokenized.prepare(spec.pretraining.data, spec.pretraining.protocol, "smoke", tmp_path)
    with_kept = tokenized.prepare(
        spec.pretraining.data, spec.pretraining.protocol, "smoke", tmp_path, foundation.place
    )  # fmt: skip
    assert (own.train == with_kept.train).all() and own.end_of_text == with_kept.end_of_text
    assert loading.find(spec, "smoke", place) == foundation  # found, not trained again


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("flap", 0.5),
        *(pytest.param(name, 0.5, marks=pytest.mark.slow) for name in ("wanda", "slicegpt", "ecospa")),
    ],
)
def test_an_interrupted_fine_tuning_goes_on_as_if_nothing_had_happened(
    method: str, target: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = runs(method, procedure="fine-tuned")
    place = run_context(tmp_path / "whole")
    whole = llama_finetuning.EXPERIMENT.execute(run, place)
    halves = run_context(tmp_path / "halves")
    loading.find(run.cell.settings.model, "smoke", halves)
    interrupt_at(8, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        llama_finetuning.EXPERIMENT.execute(run, halves)
    resumed = llama_finetuning.EXPERIMENT.execute(run, halves)
    assert resumed.loss_curve == whole.loss_curve and resumed.plan_history == whole.plan_history
    for name in ("eval_loss", "block_parameters_nonzero", "block_parameters"):
        assert value(resumed, name) == value(whole, name)


def test_other_weights_are_other_data(tmp_path: Path) -> None:
    (run,) = runs("dense", procedure="one-shot")
    one = llama_finetuning.EXPERIMENT.execute(run, run_context(tmp_path / "one"))
    spec = run.cell.settings.model
    longer = replace(spec, pretraining=replace(spec.pretraining, training=replace(spec.pretraining.training, steps=11)))
    settings = replace(run.cell.settings, model=longer)
    other = llama_finetuning.EXPERIMENT.execute(
        replace(run, cell=replace(run.cell, settings=settings)), run_context(tmp_path / "two")
    )  # fmt: skip
    assert one.data_fingerprint != other.data_fingerprint


def test_procedures_are_parts_of_the_protocol_and_the_config_is_plain_json() -> None:
    pair = [runs("ecospa", procedure=procedure)[0].cell for procedure in ("one-shot", "fine-tuned")]
    assert [cell.config["protocol"]["procedure"] for cell in pair] == ["one-shot", "fine-tuned"]
    assert pair[0].config["training"]["steps"] == 0 and pair[1].config["training"]["steps"] == STEPS
    for cell in pair:
        assert json.loads(json.dumps(cell.config)) == cell.config
        assert (
            cell.config["model"]["name"] == "llama" and cell.config["model"]["pretraining"]["training"]["steps"] == 10
        )


def test_the_cells_of_the_paper_tier_are_the_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    cells = registry.experiment("llama_finetuning").cells("paper", (MethodRef("dense"), MethodRef("surgeon")))
    assert [cell.label for cell in cells] == 2 * ["dense", *(f"surgeon {size:g}" for size in SIZES)]
    assert {cell.config["model"]["name"] for cell in cells} == {"meta-llama/Llama-2-7b-hf"}


def test_where_runs_are_dear_the_methods_of_a_claim_alone_have_several_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    cells = registry.experiment("llama_finetuning").cells("cpu", tuple(map(MethodRef, ("dense", "ecospa", "wanda"))))
    real = [cell for cell in cells if cell.settings.model == pretrained.SMOLLM2]
    assert {(cell.settings.protocol.procedure, cell.label): cell.seeds for cell in real} == {
        **{("one-shot", name): (0,) for name in ("dense", "ecospa 0.8", "ecospa 0.5", "wanda 0.8", "wanda 0.5")},
        **{("fine-tuned", name): None for name in ("dense", "ecospa 0.8", "ecospa 0.5")},
        **{("fine-tuned", name): (0,) for name in ("ecospa 0.7", "ecospa 0.6", "wanda 0.8", "wanda 0.5")},
    }
    assert all(cell.seeds is None for cell in cells if cell not in real)


def test_weights_of_the_hub_are_not_asked_for_without_being_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECOSPA_DATA", raising=False)
    assert hub_weights.missing(pretrained.LLAMA_2.name, "paper") is None
    with pytest.raises(sources.MissingSourceError, match=r"models/meta-llama__Llama-2-7b-hf, or set ECOSPA_DATA=hub"):
        loading.find(pretrained.LLAMA_2, "gpu", run_context(Path("nowhere")))
    with pytest.raises(sources.MissingSourceError, match="models/stories260K"):
        loading.find(pretrained.STORIES, "cpu", run_context(Path("nowhere")))
