"""Augmentation: the same for a batch whenever it is made, none where models are judged, labels stay probabilities."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.data.augmentation import ImageExamples
from benchmarks.data.images import ImageSet, Pictures
from benchmarks.specs.vision import AugmentationSpec
from tests.benchmarks.tiny_images import EVERYTHING

MEAN, DEVIATION = (0.2, 0.4, 0.6), (0.1, 0.2, 0.4)


def images(count: int = 12, size: int = 8) -> ImageSet:
    """Random images of three classes in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    pictures = Pictures(pixels, np.arange(count, dtype=np.int64) % 3)
    return ImageSet(pictures, pictures, 3, MEAN, DEVIATION, "print")


def examples(augmentation: AugmentationSpec = EVERYTHING, seed: int = 0) -> ImageExamples:
    found = images()
    return ImageExamples(found.train, found, 8, augmentation, seed)


def together(batch) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([example["x"] for example in batch]), torch.stack([example["labels"] for example in batch])


def test_a_batch_depends_on_seed_and_examples_alone() -> None:
    random.seed(1)
    one = together(examples().__getitems__([3, 1, 4, 2]))
    random.seed(2)
    torch.manual_seed(2)
    two = together(examples().__getitems__([3, 1, 4, 2]))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    for other in (examples(seed=1).__getitems__([3, 1, 4, 2]), examples().__getitems__([1, 3, 4, 2])):
        assert not torch.equal(one[0].sort(0).values, together(other)[0].sort(0).values)


def test_no_stream_of_random_numbers_is_touched() -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    examples().__getitems__([0, 1])
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    with pytest.raises(IndexError):
        examples().__getitems__([0, 99])
    assert before[0] == random.getstate() and before[2] == torch.get_rng_state().tolist()


def test_single_examples_are_whole_and_normalised_by_channel() -> None:
    found, pixels = examples(), images().train.pixels
    expected = (pixels[5].astype(np.float64) / 255 - MEAN) / DEVIATION
    assert np.allclose(found[5]["x"].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert int(found[5]["labels"]) == 2 and len(found) == 12


def test_without_augmentation_a_batch_is_its_examples() -> None:
    found = examples(AugmentationSpec())
    pixels, labels = together(found.__getitems__([0, 4, 7]))
    assert torch.equal(pixels, torch.stack([found[number]["x"] for number in (0, 4, 7)]))
    assert labels.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]


def test_smoothing_spreads_its_share_over_all_classes() -> None:
    _, labels = together(examples(AugmentationSpec(smoothing=0.3)).__getitems__([1]))
    assert labels[0].tolist() == pytest.approx([0.1, 0.8, 0.1])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_labels_say_how_much_of_every_image_is_there(kind: str) -> None:
    spec = AugmentationSpec(mixup=1.0) if kind == "mixup" else AugmentationSpec(cutmix=1.0)
    shares = []
    for seed in range(8):
        pixels, labels = together(examples(spec, seed).__getitems__([0, 1]))
        own, other = (examples()[number]["x"] for number in (0, 1))
        share = float(labels[0, 0])
        shares.append(share)
        assert labels.sum(1).tolist() == pytest.approx([1.0, 1.0])
        if kind == "mixup":
            assert torch.allclose(pixels[0], share * own + (1 - share) * other, atol=1e-5)
        else:
            kept = (pixels[0] == own).all(0)
            assert float(kept.double().mean()) == pytest.approx(share)
            assert torch.equal(pixels[0][:, ~kept], other[:, ~kept])
    assert len(set(shares)) > 4


def test_flips_and_crops_move_pixels_and_invent_none() -> None:
    flipped, own = examples(AugmentationSpec(flip=1.0)), examples()
    assert torch.equal(flipped.__getitems__([2])[0]["x"], own[2]["x"].flip(-1))
    shifts = set()
    for seed in range(12):
        moved = examples(AugmentationSpec(crop="pad"), seed).__getitems__([2])[0]["x"]
        black = torch.tensor([(0 - m) / d for m, d in zip(MEAN, DEVIATION, strict=True)])
        padded = black[:, None, None].expand(3, 10, 10).clone()
        padded[:, 1:9, 1:9] = own[2]["x"]
        windows = {(y, x): padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)}
        found = [place for place, window in windows.items() if torch.allclose(window, moved)]
        assert len(found) == 1
        shifts.update(found)
    assert len(shifts) > 3


def test_large_images_are_cut_and_resized() -> None:
    found = images(count=3, size=30)
    made = ImageExamples(found.train, found, 8, AugmentationSpec(crop="resized"), seed=0)
    pixels, _ = together(made.__getitems__([0, 1]))
    assert pixels.shape == (2, 3, 8, 8) and made[0]["x"].shape == (3, 8, 8)
    assert not torch.allclose(pixels[0], made[0]["x"])


def test_a_teacher_decides_about_what_the_student_sees() -> None:
    found, seen = images(), []

    def teacher(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.clone())
        return torch.tensor([[0.0, 0.1, 5.0], [2.0, 0.1, 0.0]])

    made = ImageExamples(found.train, found, 8, EVERYTHING, 0, teacher)
    pixels, labels = together(made.__getitems__([0, 1]))
    plain = together(examples().__getitems__([0, 1]))
    assert torch.equal(seen[0], pixels) and torch.equal(pixels, plain[0])
    assert labels.shape == (2, 2, 3)
    assert torch.equal(labels[:, 0], plain[1])
    assert labels[:, 1].tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    assert made[0]["labels"].shape == ()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"crop": "centre"}, "crop is 'centre'; choose none, pad or resized"),
        ({"flip": 1.5}, "flip is 1.5; it is a share"),
        ({"smoothing": -0.1}, "smoothing is -0.1"),
        ({"mixup": -1.0}, "mixup is -1.0; it must be at least 0"),
    ],
)
def test_a_wrong_setting_is_named(change: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(EVERYTHING, **change)
