"""One method used once on a trained model: every hook, no step, and the same numbers again."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import baselines
from benchmarks import registry
from benchmarks.__main__ import main
from benchmarks.experiment import MethodRef, Run
from benchmarks.experiments import compare
from benchmarks.timing.latency import latency_metrics
from benchmarks.training.compress import compress, one_event_method
from ecospa.accounting import parameters
from results.store import Store
from tests.baselines.runs import CALIBRATION, largest_step, tiny_gpt2
from tests.benchmarks.tiny_runs import run_context, use_tiny_text


@pytest.mark.parametrize("name", compare.METHODS)
def test_every_compared_method_lands_and_repeats_itself(name: str) -> None:
    reference, models = MethodRef(name), [tiny_gpt2(), tiny_gpt2()]
    whole = parameters(models[0], "blocks")
    target = 0.6 if name not in compare.WITHOUT_SIZE else baselines.load(name).only_size(models[0], "blocks")
    if name == "shortgpt":
        target = 0.5  # of two blocks
    results = []
    for model in models:
        method = one_event_method(reference, target, 2, model, seed=3)
        results.append((compress(method, model, CALIBRATION), method))
    (one, method), (two, _) = results
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not one.training and all(parameter.grad is None for parameter in one.parameters())
    if target is not None:
        kept = method.nonzero_parameters(one)[1]
        # a width step of a model that is 32 wide is much; whole heads and rows are within 1 % of a real one
        assert 0 <= kept - round(target * whole) <= max(0.01 * whole, largest_step(tiny_gpt2(), 2)), kept / whole
    assert torch.isfinite(one(**CALIBRATION.batches[0]).loss)


def test_a_compression_takes_no_step() -> None:
    model = tiny_gpt2()
    before = copy.deepcopy(model.state_dict())
    assert compress(one_event_method(MethodRef("dense"), None, 2, model, 0), model, CALIBRATION) is model
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_turns_are_taken_and_warm_up_is_left_out() -> None:
    small, dense = tiny_gpt2(), tiny_gpt2()
    calls: list[str] = []
    small.register_forward_hook(lambda *_: calls.append("small"))
    dense.register_forward_hook(lambda *_: calls.append("dense"))
    tokens = torch.randint(1, 31, (7, 12))
    metrics = latency_metrics(small, dense, tokens)
    assert calls == ["small", "dense"] * 7
    assert metrics["latency"].n == 4
    assert metrics["latency_ratio"].value > 0


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)
    subject = compare.SUBJECTS["smoke"][0]
    assert subject.architecture is not None and subject.training is not None
    small = replace(
        subject,
        architecture=replace(subject.architecture, layers=2, width=32, vocabulary=300, positions=16),
        training=replace(subject.training, steps=12, warmup_steps=2),
        protocol=replace(subject.protocol, tokenizer="bpe-300", sequence_length=16, stride=15),
        calibration=compare.CalibrationSpec(sequences=16, batch_size=4),
    )
    monkeypatch.setattr(compare, "SUBJECTS", {"smoke": (small,)})


@pytest.mark.usefixtures("tiny")
def test_the_dense_model_is_trained_once_and_everything_is_measured(tmp_path: Path) -> None:
    place = run_context(tmp_path)
    cells = compare.chosen_cells("smoke", [MethodRef(name) for name in ("dense", "wanda", "slicegpt")], "gpt2", [0.5])
    outcomes = {cell.method: compare.EXPERIMENT.execute(Run(cell, 1), place) for cell in cells}
    assert len([path for path in (tmp_path / "trained").iterdir() if path.is_dir()]) == 1
    assert len({outcome.data_fingerprint for outcome in outcomes.values()}) == 1
    values = {name: {key: m.value for key, m in outcome.metrics.items()} for name, outcome in outcomes.items()}
    assert values["dense"]["perplexity"] == values["dense"]["perplexity_dense"] == values["wanda"]["perplexity_dense"]
    assert values["dense"]["block_share"] == 1.0 and values["wanda"]["block_share"] == pytest.approx(0.5, abs=1e-4)
    assert values["wanda"]["forward_flops_ratio"] == 1.0 > values["slicegpt"]["forward_flops_ratio"]
    assert values["wanda"]["block_parameters"] == values["dense"]["block_parameters"]
    calibration = outcomes["wanda"].payload["calibration"]
    assert calibration == {
        "source": "docstrings default, training side", "sequences": 16, "sequence_length": 16, "seed": 1,
    }  # fmt: skip
    again = compare.EXPERIMENT.execute(Run(cells[1], 1), place)
    assert again.metrics["eval_loss"] == outcomes["wanda"].metrics["eval_loss"]
    other = compare.EXPERIMENT.execute(Run(cells[1], 2), place)
    assert other.metrics["eval_loss"] != outcomes["wanda"].metrics["eval_loss"]


def test_cells_are_every_method_at_every_size() -> None:
    cells = registry.experiment("compare").cells("cpu", (MethodRef("dense"), MethodRef("wanda")))
    labels = [(cell.config["model"]["name"], cell.label) for cell in cells]
    assert labels == [
        (model, label)
        for model in compare.MODELS
        for label in ("dense", *(f"wanda {s:g}" for s in compare.sizes_of("cpu", model)))
    ]
    assert {cell.settings.model for cell in cells if cell.seeds == (0,)} == {"SmolLM2-135M-Instruct"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "half"], "sizes is 'half'"), (["--sizes", "0.5,0"], "sizes is '0.5,0'"),
        (["--model", "stories260K"], "stories260K.*tier smoke.*choose gpt2 in tier smoke"),
        (["--methods", "ecospa,mine"], "method is 'mine'; choose one of"),
    ],
)  # fmt: skip
def test_a_senseless_comparison_is_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert main(["compare", "--tier", "smoke", "--records", str(tmp_path), *words]) == 2
    assert re.search(message, " ".join(capsys.readouterr().out.split()))
    assert Store(tmp_path).records(status=None) == []
