"""Image classifiers through the runner: they learn, resume bitwise with all augmentation, and are counted right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import task
from benchmarks.experiment import Cell, Run, RunResult
from benchmarks.metrics import flops
from benchmarks.models.vision import build_classifier, positions
from benchmarks.specs.vision import AugmentationSpec, ImageProtocolSpec, VisionModelSpec
from benchmarks.tasks.image_classification import step_loss
from benchmarks.training import checkpoint
from tests.benchmarks.test_runner import interrupt_at
from tests.benchmarks.tiny_images import DISTILLED, EVERYTHING, PLAIN, STEPS, TEACHER, image_run
from tests.benchmarks.tiny_runs import run_context, train


def value(outcome: RunResult, name: str) -> float:
    return outcome.metrics[name].value


def test_a_classifier_learns_and_everything_is_measured(tmp_path: Path) -> None:
    run = image_run(augmentation=AugmentationSpec(), model=replace(PLAIN, drop_path=0.0), steps=80)
    outcome = train(run, run_context(tmp_path))
    assert {"top1", "top5", "eval_loss", "parameters", "step_flops", "training_bytes"} <= set(outcome.metrics)
    assert outcome.loss_curve[-1][1] < 0.6 * outcome.loss_curve[0][1]
    assert value(outcome, "top1") > 0.3
    assert value(outcome, "top5") >= value(outcome, "top1")
    assert outcome.metrics["top1"].n == 20 and outcome.metrics["top1"].higher_is_better
    assert value(outcome, "training_bytes") == 16 * value(outcome, "parameters")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("ecospa", 0.5),
        *(
            pytest.param(*run, marks=pytest.mark.slow)
            for run in (("small_dense", 0.5), ("magnitude", 0.5), ("svite", 0.6))
        ),
    ],
)
def test_methods_land_on_their_target(method: str, target: float, tmp_path: Path) -> None:
    outcome = train(image_run(method, target), run_context(tmp_path))
    whole = train(image_run(), run_context(tmp_path))
    kept = value(outcome, "block_parameters_nonzero") / value(whole, "block_parameters")
    assert kept == pytest.approx(target, abs=0.05)
    if method != "magnitude":
        assert value(outcome, "step_flops") < 0.8 * value(whole, "step_flops")


@pytest.mark.parametrize(
    ("method", "target", "taught"),
    [
        *(("svite", 0.6, False), ("ecospa", 0.5, True)),
        *(
            pytest.param(*run, marks=pytest.mark.slow)
            for run in (
                *(("dense", None, False), ("ecospa", 0.3, False), ("small_dense", 0.5, False)),
                *(("magnitude", 0.5, False), ("random_pairs", 0.5, False), ("dense", None, True)),
            )
        ),
    ],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    method: str, target: float | None, taught: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = image_run(method, target, model=DISTILLED if taught else PLAIN, teacher=TEACHER if taught else None)
    whole = train(run, run_context(tmp_path / "whole"))
    interrupt_at(8, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(run, run_context(tmp_path / "halves"))
    saved = checkpoint.latest(tmp_path / "halves" / run.folder_name)
    assert saved is not None and saved.name == "checkpoint-7"
    resumed = train(run, run_context(tmp_path / "halves"))
    assert resumed.loss_curve == whole.loss_curve and len(whole.loss_curve) == STEPS
    assert resumed.plan_history == whole.plan_history
    for name in ("eval_loss", "top1", "run_flops", "parameters", "block_parameters_nonzero"):
        assert value(resumed, name) == value(whole, name)


def test_augmentation_changes_what_is_learnt(tmp_path: Path) -> None:
    plain = train(image_run(augmentation=AugmentationSpec()), run_context(tmp_path))
    assert plain.loss_curve != train(image_run(), run_context(tmp_path)).loss_curve


@pytest.mark.parametrize("taught", [False, True])
def test_small_batches_add_up_to_the_step(taught: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (6, 2, 5) if taught else (6, 5)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.rand(shape, generator=generator, dtype=torch.float64).softmax(-1)

    def loss(start: int, stop: int, entries: int | None) -> torch.Tensor:
        part = logits[start:stop]
        return step_loss(part.unbind(1) if taught else part, labels[start:stop], num_items_in_batch=entries)

    by_hand = [
        -sum(float(p) * float(q) for p, q in zip(row_labels, row.log_softmax(-1), strict=True))
        for row, row_labels in zip(logits.flatten(0, -2), labels.flatten(0, -2), strict=True)
    ]
    expected = sum(by_hand) / len(by_hand)
    assert float(loss(0, 6, None)) == pytest.approx(expected, rel=1e-6)
    assert float(loss(0, 2, labels.numel()) + loss(2, 6, labels.numel())) == pytest.approx(expected, rel=1e-6)


def test_accumulated_gradients_are_those_of_the_whole_step(tmp_path: Path) -> None:
    quiet = {"augmentation": AugmentationSpec(smoothing=0.1), "model": replace(PLAIN, drop_path=0.0), "steps": 10}
    whole = train(image_run(**quiet), run_context(tmp_path / "whole"))
    parts = train(image_run(**quiet, micro_batch_size=2), run_context(tmp_path / "parts"))
    assert [loss for _, loss in parts.loss_curve] == pytest.approx([loss for _, loss in whole.loss_curve], rel=1e-3)


@pytest.mark.parametrize(("spec", "prefix"), [(PLAIN, 1), (DISTILLED, 2)])
def test_flops_are_those_that_are_counted_while_it_runs(spec: VisionModelSpec, prefix: int, tmp_path: Path) -> None:
    assert positions(spec) == 4 + prefix
    loaded = task.load(image_run(model=spec), tmp_path)
    model, one = loaded.build().eval(), loaded.batch(1)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(one["x"])
    # the shapes charge the patch embedding and the heads for every token
    assert flops.forward_flops(model, loaded.tokens, one) == pytest.approx(counter.get_total_flops(), rel=0.1)
    blocks = 2 * loaded.tokens * (2 * 12 * 32 * 32 + 2 * loaded.tokens * 2 * 32)  # layers, matrices; both products
    assert counter.get_total_flops() == pytest.approx(blocks, rel=0.1)


def test_a_batch_of_the_task_is_not_augmented(tmp_path: Path) -> None:
    loaded = task.load(image_run(), tmp_path)
    batch = loaded.batch(4)
    assert batch["x"].shape == (4, 3, 8, 8) and batch["labels"].dtype == torch.int64
    assert torch.equal(batch["x"], loaded.batch(4)["x"])


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    def load(**changes: object) -> None:
        task.load(image_run(**changes), tmp_path)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="classes is 7; the source 'digits' has 10"):
        load(model=replace(PLAIN, classes=7))
    with pytest.raises(ValueError, match="no distillation token"):
        load(teacher=TEACHER)
    with pytest.raises(ValueError, match="teacher name is 'no_such_net'"):
        load(model=DISTILLED, teacher=replace(TEACHER, name="no_such_net"))
    for name in ("vit_nowhere", "levit_128s"):
        with pytest.raises(ValueError, match=f"name is '{name}'; give a VisionTransformer"):
            build_classifier(replace(PLAIN, name=name), 0)
    with pytest.raises(ValueError, match="multiple of patch"):
        replace(PLAIN, patch=3)
    with pytest.raises(ValueError, match="multiple of heads"):
        replace(PLAIN, heads=5)


def test_the_same_seed_gives_the_same_weights() -> None:
    one, two, other = (build_classifier(PLAIN, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_every_setting_counts() -> None:
    run = image_run(teacher=TEACHER)
    settings = run.cell.settings
    changed = [
        replace(settings, model=replace(PLAIN, drop_path=0.0)),
        replace(settings, protocol=ImageProtocolSpec("test", replace(EVERYTHING, mixup=0.0), TEACHER)),
        replace(settings, protocol=ImageProtocolSpec("test", EVERYTHING, None)),
        replace(settings, data=replace(settings.data, train_images=39)),
    ]
    hashes = {Cell("tiny_images", "smoke", "dense", each).config_hash for each in (settings, *changed)}
    assert len(hashes) == 5
    assert Run(run.cell, 1).cell.config_hash == run.cell.config_hash
