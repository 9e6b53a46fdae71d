"""Images: where they come from, what is kept of them, and what is said when they are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import source
from benchmarks.data.examples import HELD_OUT
from benchmarks.data.images import ImageDataSpec, ImageSet, Pictures, arrays_fingerprint, prepare_images
from benchmarks.data.sources import cifar10, digits, imagenet
from tests.benchmarks.tiny_images import mirror

SPEC = ImageDataSpec("digits", "default", train_images=30, evaluation_images=10)


@pytest.mark.parametrize("name", ["cifar10", "digits", "imagenet"])
def test_every_source_is_found_by_its_file(name: str) -> None:
    assert source.find(name).name == name


@pytest.mark.parametrize("module", [cifar10, imagenet])
def test_missing_images_name_themselves_the_tier_and_both_ways(module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECOSPA_DATA", raising=False)
    with pytest.raises(source.MissingSourceError) as caught:
        module.load("default", "test", "cpu")
    text = str(caught.value)
    assert f"source {module.SOURCE.name!r}, tier 'cpu'" in text and "ECOSPA_DATA is not set" in text
    assert module.HUB_ID in text
    with pytest.raises(source.MissingSourceError, match="ECOSPA_DATA is not set"):
        prepare_images(replace(SPEC, source=module.SOURCE.name), "test", "cpu", Path("nowhere"))


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    found, own = digits.load("default", "test", "smoke"), load_digits()
    assert (len(found.train), len(found.evaluation), found.classes) == (1437, 360, 10)
    pixels = np.concatenate([found.train.pixels, found.evaluation.pixels])
    assert pixels.dtype == np.uint8 and pixels.shape == (1797, 8, 8, 3)
    assert np.abs(pixels[..., 1] / 255 - own.images / 16).max() < 0.003
    assert np.concatenate([found.train.labels, found.evaluation.labels]).tolist() == own.target.tolist()


def test_arrays_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_images(SPEC, "test", "smoke", tmp_path)
    assert (len(first.train), len(first.evaluation)) == (30, 10)
    changed = [replace(SPEC, train_images=29), replace(SPEC, evaluation_images=None)]
    for other in changed:
        prepare_images(other, "test", "smoke", tmp_path)
    assert len(list((tmp_path / "images").glob("*.npz"))) == 3

    def load(*arguments: object) -> ImageSet:
        raise AssertionError("loaded again")

    frozen = replace(digits.SOURCE, load=load)
    monkeypatch.setattr(source, "find", lambda name: frozen)
    again = prepare_images(SPEC, "test", "smoke", tmp_path)
    assert again.fingerprint == first.fingerprint == arrays_fingerprint(again.train, again.evaluation)
    assert np.array_equal(again.train.pixels, first.train.pixels) and (again.mean, again.classes) == (first.mean, 10)
    monkeypatch.setattr(source, "find", lambda name: replace(frozen, key=lambda configuration: "another"))
    with pytest.raises(AssertionError, match="loaded again"):
        prepare_images(SPEC, "test", "smoke", tmp_path)


def test_the_fingerprint_sees_pixels_labels_and_splits() -> None:
    pixels, labels = np.zeros((4, 2, 2, 3), np.uint8), np.arange(4)
    base = (Pictures(pixels[:2], labels[:2]), Pictures(pixels[2:], labels[2:]))
    moved = (Pictures(pixels[:3], labels[:3]), Pictures(pixels[3:], labels[3:]))
    brighter = (Pictures(pixels[:2] + np.uint8(1), labels[:2]), base[1])
    other = (Pictures(pixels[:2], labels[1:3]), base[1])
    assert len({arrays_fingerprint(*splits) for splits in (base, moved, brighter, other)}) == 4


def test_a_wrong_number_of_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_images is 0; it must be at least 1"):
        ImageDataSpec("digits", "default", train_images=0)
    with pytest.raises(ValueError, match="2000 images are asked for and 1437 are there"):
        prepare_images(replace(SPEC, train_images=2000), "test", "smoke", tmp_path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror and a cache of `datasets` of the test's own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("ECOSPA_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_cifar_is_decoded_from_a_mirror(place: Path) -> None:
    pixels = mirror(place / "uoft-cs__cifar10" / "plain_text", "img", {"train": 12, "test": 5}, "PNG")
    found = cifar10.load("plain_text", "test", "cpu")
    assert np.array_equal(found.train.pixels, pixels["train"]) and np.array_equal(
        found.evaluation.pixels, pixels["test"]
    )
    assert found.train.labels.tolist() == [n % 10 for n in range(12)]
    assert "train-00000-of-00001.parquet" in cifar10.key("plain_text")


def test_the_held_out_images_of_cifar_are_not_trained_on(place: Path) -> None:
    pixels = mirror(place / "uoft-cs__cifar10" / "plain_text", "img", {"train": 30, "test": 5}, "PNG")["train"]
    found = cifar10.load("plain_text", HELD_OUT, "cpu")
    assert np.array_equal(found.train.pixels, pixels[:27]) and np.array_equal(found.evaluation.pixels, pixels[27:])
    assert found.evaluation.labels.tolist() == [7, 8, 9]


def test_imagenet_stays_encoded_until_an_image_is_asked_for(place: Path) -> None:
    mirror(place / "ILSVRC__imagenet-1k" / "default", "image", {"train": 6, "validation": 4}, "JPEG", size=40)
    spec = ImageDataSpec("imagenet", "default", train_images=5)
    found = prepare_images(spec, "validation", "paper", place / "work")
    assert (len(found.train), len(found.evaluation), found.classes) == (5, 4, 1000)
    assert len(found.train.pixels) == 5 and found.train.pixels[4].size == (40, 40)
    assert found.train.pixels[0].mode == "RGB" and not (place / "work").exists()
    assert found.fingerprint == imagenet.load("default", "validation", "paper").fingerprint
