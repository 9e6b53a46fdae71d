"""Teachers: trained once and kept, asked in evaluation mode, refused where they do not fit."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines.calibration import batch_loss, outputs
from benchmarks import task
from benchmarks.data.augmentation import ImageExamples
from benchmarks.data.source import MissingSourceError
from benchmarks.data.sources import digits
from benchmarks.models import teacher as teachers
from benchmarks.models.teacher import load_teacher
from benchmarks.specs.vision import AugmentationSpec, TeacherSpec
from tests.benchmarks.tiny_images import DISTILLED, TEACHER, image_run


def examples() -> ImageExamples:
    """Digits, not augmented."""
    found = digits.load("default", "test", "smoke")
    return ImageExamples(found.train.first(200), found, 8, AugmentationSpec(), 0)


def test_a_teacher_learns_and_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, learnt = replace(TEACHER, steps=40, batch_size=20), examples()
    state = torch.get_rng_state()
    teacher = load_teacher(spec, learnt, 10, "print", tmp_path, "cpu")
    pixels = torch.stack([learnt[number]["x"] for number in range(200)])
    labels = torch.stack([learnt[number]["labels"] for number in range(200)])
    logits = teacher(pixels)
    assert float((logits.argmax(-1) == labels).double().mean()) > 0.6
    assert not teacher.model.training and not any(p.requires_grad for p in teacher.model.parameters())
    monkeypatch.setattr(teachers, "_train", lambda *arguments: pytest.fail("trained again"))
    again = load_teacher(spec, learnt, 10, "print", tmp_path, "cpu")
    assert torch.equal(again(pixels), logits)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        load_teacher(spec, learnt, 10, "another print", tmp_path, "cpu")


def test_published_weights_need_a_network_or_the_same_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(name: str, pretrained: bool) -> torch.nn.Module:
        raise OSError("no network")

    create, spec = timm.create_model, TeacherSpec("resnet10t")
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(MissingSourceError, match=r"teacher 'resnet10t'.*no network.*TeacherSpec\(steps="):
        load_teacher(spec, examples(), 10, "print", tmp_path, "cpu")
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: create(name, num_classes=7))
    with pytest.raises(ValueError, match="knows 7 classes, the data have 10"):
        load_teacher(spec, examples(), 10, "print", tmp_path, "cpu")
    with pytest.raises(ValueError, match="steps is -1"):
        replace(spec, steps=-1)


def test_a_taught_model_trains_both_heads_and_is_judged_by_their_mean(tmp_path: Path) -> None:
    loaded = task.load(image_run(model=DISTILLED, teacher=TEACHER), tmp_path)
    model = loaded.build().train()
    batch = loaded.batch(3)
    heads = model(batch["x"])
    assert isinstance(heads, tuple) and len(heads) == 2
    assert isinstance(model.eval()(batch["x"]), torch.Tensor)
    torch.manual_seed(0)
    mean = outputs(model.train(), batch)
    torch.manual_seed(0)
    assert torch.equal(mean, torch.stack(model(batch["x"])).mean(0))
    assert batch_loss(model, batch).shape == ()
    made = loaded.examples.__getitems__([0, 1])  # type: ignore[attr-defined]
    assert loaded.loss is not None
    loaded.loss(model(torch.stack([e["x"] for e in made])), torch.stack([e["labels"] for e in made]), None).backward()
    for head in (model.head, model.head_dist):
        assert head.weight.grad is not None and bool(head.weight.grad.any())


def test_the_teachers_weights_are_part_of_the_data_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = image_run(model=DISTILLED, teacher=TEACHER)
    alone = task.load(image_run(model=DISTILLED), tmp_path).fingerprint
    first = task.load(run, tmp_path).fingerprint
    assert task.load(run, tmp_path).fingerprint == first != alone
    train = teachers._train

    def a_little_different(model: torch.nn.Module, *arguments: object) -> None:
        train(model, *arguments)  # type: ignore[arg-type]
        with torch.no_grad():
            next(iter(model.parameters())).mul_(1 + 1e-3)

    monkeypatch.setattr(teachers, "_train", a_little_different)
    assert task.load(run, tmp_path / "another").fingerprint != first


def test_two_runs_at_one_time_train_one_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings: list[object] = []

    def slow(model: torch.nn.Module, *arguments: object) -> None:
        trainings.append(model)
        time.sleep(0.3)

    monkeypatch.setattr(teachers, "_train", slow)
    learnt = examples()
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: load_teacher(TEACHER, learnt, 10, "print", tmp_path, "cpu"), range(2)))
    assert len(trainings) == 1 and both[0].fingerprint == both[1].fingerprint


def test_without_a_teacher_the_same_model_gives_one_answer(tmp_path: Path) -> None:
    loaded = task.load(image_run(model=DISTILLED), tmp_path)
    assert isinstance(loaded.build().train()(loaded.batch(2)["x"]), torch.Tensor)
