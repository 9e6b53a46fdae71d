"""--weights: which weights a run starts from is part of its settings, where they lie is not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks import commands, registry, task
from benchmarks.__main__ import main
from benchmarks.data.fingerprints import fingerprint
from benchmarks.execution.initial_weights import FINE_TUNING_RATE, StartedSettings, started_from
from benchmarks.execution.recording import command
from benchmarks.experiment import Cell, MethodRef, Run
from benchmarks.models.encoder import build_encoder
from tests.benchmarks.tiny_encoders import CLASSIFICATION, ENCODER, SPANS, checkpoint, run_of, use_tiny_examples
from tests.benchmarks.tiny_runs import run_context, tiny_experiment, train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "bert")


def tiny(kind: str = "labels") -> object:
    """An experiment with one encoder."""
    settings = run_of(kind).cell.settings
    return dataclasses.replace(
        tiny_experiment(("dense",)),
        cells=lambda tier, methods: tuple(Cell("tiny", tier, ref.name, settings) for ref in methods),
    )


def cell_of(folder: Path, kind: str = "labels") -> Cell:
    """The one cell of the tiny experiment, started from a folder."""
    (experiment,) = started_from([tiny(kind)], folder, "smoke")  # type: ignore[list-item]
    return experiment.cells("smoke", (MethodRef("dense"),))[0]


def test_the_hash_knows_the_weights_and_not_their_place(folder: Path, tmp_path: Path) -> None:
    cell = cell_of(folder)
    assert cell.config["model"]["weights"] == fingerprint(folder)
    assert str(folder) not in str(cell.config)
    shutil.copytree(folder, tmp_path / "moved")
    assert cell_of(tmp_path / "moved").config_hash == cell.config_hash
    other = checkpoint(tmp_path / "other", num_hidden_layers=1)
    assert cell_of(other).config_hash != cell.config_hash
    assert cell_of(other).config["model"]["layers"] == 1
    assert cell.config_hash != run_of("labels").cell.config_hash
    assert command(Run(cell, 0)).endswith("--methods dense --weights DIR --seeds 0")
    assert cell.settings.training.learning_rate == FINE_TUNING_RATE


def test_a_method_that_starts_from_nothing_is_left_out(folder: Path) -> None:
    (experiment,) = started_from([tiny()], folder, "smoke")  # type: ignore[list-item]
    wanted = tuple(MethodRef(name) for name in ("dense", "small_dense", "ecospa"))
    assert [cell.method for cell in experiment.cells("smoke", wanted)] == ["dense", "ecospa"]


def test_weights_are_given_the_input_that_they_know(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helped = dataclasses.replace(SPANS, only_answered=True, marked=True)
    monkeypatch.setattr("tests.benchmarks.tiny_encoders.SPANS", helped)
    assert run_of("questions").cell.settings.protocol == helped
    assert cell_of(folder, "questions").settings.protocol == SPANS
    monkeypatch.setattr(
        "tests.benchmarks.tiny_encoders.CLASSIFICATION", dataclasses.replace(CLASSIFICATION, marked=True)
    )
    assert cell_of(folder).settings.protocol == CLASSIFICATION


@pytest.mark.parametrize("kind", ["labels", "questions"])
def test_a_run_starts_from_the_weights_with_a_fresh_head(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForMaskedLM

    use_tiny_examples(monkeypatch)
    cell = cell_of(folder, kind)
    assert isinstance(cell.settings, StartedSettings)
    own = task.load(Run(cell, 0), tmp_path)
    assert fingerprint(folder) in own.fingerprint
    given = BertForMaskedLM.from_pretrained(folder).bert.state_dict()
    found = {name: value for name, value in own.build().state_dict().items() if name.startswith("bert.")}
    assert len(given) > 30
    assert all(torch.equal(found[f"bert.{name}"], value) for name, value in given.items())
    one, two = (task.load(Run(cell, seed), tmp_path).build().state_dict() for seed in (0, 1))
    head = "classifier.weight" if kind == "labels" else "qa_outputs.weight"
    assert torch.equal(one[head], own.build().state_dict()[head]) and not torch.equal(one[head], two[head])
    outcome = train(Run(cell, 0), run_context(tmp_path / "run"))
    assert outcome.loss_curve[-1][0] == cell.settings.training.steps


def test_a_head_that_comes_with_the_weights_is_not_taken(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=200,
        max_position_embeddings=40,
    )  # fmt: skip
    trained = BertForSequenceClassification(config)
    trained.classifier.weight.data.add_(1.0)
    trained.save_pretrained(tmp_path)
    spec = dataclasses.replace(ENCODER, weights=fingerprint(tmp_path))
    model = build_encoder(spec, 2, 0, folder=tmp_path)
    assert torch.equal(model.bert.pooler.dense.weight, trained.bert.pooler.dense.weight)
    assert not torch.equal(model.classifier.weight, trained.classifier.weight)


def test_other_weights_than_those_of_the_settings_are_refused(folder: Path, tmp_path: Path) -> None:
    spec = dataclasses.replace(ENCODER, weights=fingerprint(folder))
    other = checkpoint(tmp_path / "other", num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"weights is sha256:\w+, but .*other holds sha256"):
        build_encoder(spec, 2, 0, folder=other)
    with pytest.raises(ValueError, match="lies in no known folder; give it with --weights"):
        build_encoder(spec, 2, 0)
    with pytest.raises(ValueError, match="of a BERT encoder"):
        build_encoder(dataclasses.replace(spec, weights=fingerprint(other)), 2, 0, folder=other)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocab_size": 300}, "vocabulary of 300, the tokenizer here one of 200"),
        ({"max_position_embeddings": 16}, "16 positions, and tiny needs 24"),
        ({"intermediate_size": 64}, "intermediate_size is 64; it must be 128"),
    ],
)
def test_weights_that_do_not_fit_are_refused(sizes: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        cell_of(checkpoint(tmp_path / "bert", **sizes))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        cell_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="num_hidden_layers is None; it must be a whole number"):
        cell_of(tmp_path)
    config = json.loads((checkpoint(tmp_path / "bert") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(ValueError, match="model_type is 'gpt2'; it must be 'bert'"):
        cell_of(tmp_path)
    with pytest.raises(ValueError, match=r"holds no \*\.safetensors"):
        fingerprint(tmp_path)


def test_reproduce_leaves_other_experiments_as_they_are(folder: Path) -> None:
    other = dataclasses.replace(tiny_experiment(("dense",)), name="other")
    _, unchanged = started_from([tiny(), other], folder, "smoke")  # type: ignore[list-item]
    assert unchanged is other


def test_the_command_line_takes_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ["run", "mismatch_error", "--records", str(tmp_path / "records"), "--dry-run"]
    assert main([*plain, "--weights", str(folder)]) == 2
    assert "mismatch_error trains no BERT in tier smoke" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(registry, "experiments", lambda: {"tiny": tiny()})
    plans = []
    monkeypatch.setattr(commands.terminal, "print_plan", lambda plan, console, jobs: plans.append(plan))
    assert main(["run", "tiny", "--records", str(tmp_path / "records"), "--dry-run", "--weights", str(folder)]) == 0
    assert plans[0].runs[0].run.cell.settings.folder == folder
