"""The checks of the two sides find what is wrong: each is shown a side that does it wrong, and the real ones."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import benchmarks.capabilities.checks as checks
import ecospa
from baselines.calibration import Batch
from benchmarks.capabilities.checks import Subject, check_cut, check_training, prepare, time_limit
from benchmarks.capabilities.libraries import SIDES, EcoSpaSide
from benchmarks.capabilities.removed_entries import removed_entries, zeroed
from benchmarks.experiment import MethodRef, Run, RunContext
from benchmarks.experiments import peers
from benchmarks.procedures.library_comparison import cut_times, execute, tried
from tests.model_zoo import build, logits, random_plan, removed_masks
from tests.model_zoo import inputs as zoo_inputs


def subject(side: str, model: str = "gpt2", limit: float = 60.0) -> Subject:
    (shape,) = (shape for shape in peers.MODELS if shape.name == model)
    return prepare(side, peers.PeerSettings(MethodRef(side), shape, None, 1, limit), seed=0)


def pretend(monkeypatch: pytest.MonkeyPatch, cut: Any) -> Subject:
    """A side of its own, `cut(model, parts, batch, optimizer)`."""

    class Pretender(EcoSpaSide):
        def cut(self, model: nn.Module, parts: Collection[str], batch: Batch, optimizer: Any = None) -> None:
            cut(model, parts, batch, optimizer)

    monkeypatch.setitem(SIDES, "pretender", Pretender())
    return subject("pretender")


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert", "timm-vit"])
def test_what_is_gone_is_found_from_the_weights_alone(kind: str) -> None:
    model = build(kind)
    plan = random_plan(model, 3)
    cut = copy.deepcopy(model)
    ecospa.apply_plan(cut, plan)
    found = zeroed(model, removed_entries(model, cut))
    for (name, mask), (own, parameter) in zip(
        removed_masks(model, plan).items(), found.named_parameters(), strict=True
    ):
        assert torch.equal(parameter, model.get_parameter(own) * mask), name
    batch = zoo_inputs(kind)
    assert (logits(found, batch) - logits(cut, batch)).abs().max() < 1e-12


def test_a_changed_value_is_no_cut() -> None:
    model = build("gpt2")
    cut = copy.deepcopy(model)
    ecospa.apply_plan(cut, random_plan(cut, 3))
    with torch.no_grad():
        cut.transformer.h[0].attn.c_attn.weight[0, 0] += 1
    with pytest.raises(ValueError, match="holds values after the cut that it did not have before"):
        removed_entries(model, cut)


def shifts_a_norm(model: Any, *_: Any) -> None:
    EcoSpaSide().cut(model, *_)
    with torch.no_grad():
        model.transformer.h[0].ln_1.bias += 0.1


def cuts_too_little(model: Any, *_: Any) -> None:
    ecospa.apply_plan(model, ecospa.plan_shrink(model, 0.9, target_scope="blocks", width_multiple=2))


def breaks(model: Any, *_: Any) -> None:
    raise RuntimeError("no way\nto do it")


@pytest.mark.parametrize(
    ("cut", "outcome", "detail"),
    [
        (EcoSpaSide().cut, "works", "outputs within"),
        (lambda *_: None, "nothing", "no parameter is gone"),
        (shifts_a_norm, "wrong", "outputs differ by"),
        (cuts_too_little, "wrong", "of it is gone"),
        (breaks, "fails", "RuntimeError: no way to do it"),
    ],
)
def test_a_cut_is_judged_by_what_it_did(monkeypatch: pytest.MonkeyPatch, cut: Any, outcome: str, detail: str) -> None:
    side = pretend(monkeypatch, cut)
    found = tried("cut", lambda: check_cut(side, "attention"))
    assert found.outcome == outcome and detail in found.detail


def drops_the_state(model: Any, parts: Any, batch: Any, optimizer: Any = None) -> None:
    EcoSpaSide().cut(model, parts, batch, optimizer)
    if optimizer is not None:
        optimizer.state.clear()


def leaves_the_optimizer(model: Any, parts: Any, batch: Any, optimizer: Any = None) -> None:
    for parent in [*model.modules()]:
        for name, parameter in [*parent._parameters.items()]:
            if parameter is not None:
                parent._parameters[name] = nn.Parameter(parameter.detach().clone())
    EcoSpaSide().cut(model, parts, batch)


@pytest.mark.parametrize(
    ("cut", "outcome", "detail"),
    [
        (EcoSpaSide().cut, "works", "of masked training"),
        (drops_the_state, "wrong", "from masked training"),
        (leaves_the_optimizer, "wrong", "silently trains no more"),
    ],
)
def test_training_on_is_judged_by_the_masked_model(
    monkeypatch: pytest.MonkeyPatch, cut: Any, outcome: str, detail: str
) -> None:
    side = pretend(monkeypatch, cut)
    found = tried("train", lambda: check_training(side, ("attention", "feed-forward")))
    assert found.outcome == outcome and detail in found.detail


def test_what_does_not_end_is_stopped() -> None:
    with pytest.raises(TimeoutError, match=r"not done after 0\.05 processor seconds"), time_limit(0.05):
        while True:
            pass


def test_the_library_silently_leaves_gpt2_whole() -> None:
    pytest.importorskip("torch_pruning", reason="needs the extra 'peers'")
    found = tried("cut", lambda: check_cut(subject("torch_pruning"), "attention"))
    assert found.outcome == "nothing"


def test_both_sides_halve_the_heads_of_bert_interleaved() -> None:
    pytest.importorskip("torch_pruning", reason="needs the extra 'peers'")
    (shape,) = (shape for shape in peers.MODELS if shape.name == "bert")
    found = cut_times(shape, 1, seed=0)
    assert set(found) == {"heads_time", "peer_heads_time", "heads_time_ratio"}


def test_a_run_tries_everything_in_a_new_process_too(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning", reason="needs the extra 'peers'")
    (cell,) = (
        cell for cell in peers.cells("cpu", (MethodRef("ecospa"),)) if cell.settings.model.name == "llama_grouped"
    )
    outcome = execute(Run(cell, 0), RunContext(tmp_path, threads=1))
    findings = {found["capability"]: found for found in outcome.payload["findings"]}
    assert {name: found["outcome"] for name, found in findings.items()} == dict.fromkeys(
        (
            *("cut half of the attention", "cut half of the feed-forward", "decode with a cache"),
            *("save and load, safetensors", "save and load, pickle", "train on, optimizer kept"),
        ),
        "works",
    )
    assert outcome.metrics["works"].value == outcome.metrics["tried"].value == 6


@pytest.mark.slow
def test_a_loading_error_is_the_new_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(EcoSpaSide):
        def save(self, model: nn.Module, folder: Path) -> None:
            model.save_pretrained(folder)
            (folder / "config.json").unlink()

    monkeypatch.setitem(SIDES, "ecospa", Careless())
    own = subject("ecospa")
    saved = checks.saved_and_loaded(own, own.cut(["attention"]))
    found = tried("load", lambda: checks.check_loaded(saved["safetensors"]))
    assert found.outcome == "fails" and "CheckpointError" in found.detail and "..." in found.detail
    assert tried("load", lambda: checks.check_loaded(saved["pickle"])).outcome == "works"
    assert dataclasses.astuple(tried("load", lambda: checks.check_loaded(0.5)))[1] == "wrong"
