"""Edited and damaged folders: an error of ours that changes nothing, or bitwise the model that was saved."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ecospa
from tests.model_zoo import ZOO, inputs, logits, random_plan

EDITS, LARGE_EDITS = 60, 500
FLIPS, LARGE_FLIPS = 60, 900
SAVED = {"gpt2": {}, "llama-gqa": {"max_shard_size": "20KB"}, "timm-vit": {}}

Edit = Callable[[Path, random.Random, Path], None]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Per kind a saved cut model and its output."""
    made = {}
    for kind, options in SAVED.items():
        folder = tmp_path_factory.mktemp("saved") / kind
        model = ZOO[kind].build().double().eval()
        ecospa.apply_plan(model, random_plan(model, 21))
        ecospa.save_pretrained(model, folder, **options)
        with torch.no_grad():
            made[kind] = (folder, logits(model, inputs(kind)))
    return made


def mutated(content: Any, chance: random.Random) -> Any:
    """The same JSON with one value changed, lost or added."""
    if isinstance(content, dict) and content and chance.random() < 0.9:
        key = chance.choice(sorted(content))
        if chance.random() < 0.2:
            return {name: value for name, value in content.items() if name != key}
        return {**content, key: mutated(content[key], chance)}
    if isinstance(content, list) and content and chance.random() < 0.5:
        position = chance.randrange(len(content))
        return [*content[:position], mutated(content[position], chance), *content[position + 1 :]]
    if type(content) in (int, float):
        return chance.choice([content + 1, content - 1, -content, 0, 10**9, str(content), None])
    if isinstance(content, str):
        return chance.choice([content + "x", "", "../" + content, None, 7, "relu", "/etc/passwd"])
    return chance.choice([None, True, False, 1, -1, "relu", [], {}, {"a": 1}, [1, "b"]])


def edit_json(folder: Path, chance: random.Random, other: Path) -> None:
    path = chance.choice(sorted(folder.glob("*.json")))
    path.write_text(json.dumps(mutated(json.loads(path.read_text()), chance)))


def rename(folder: Path, chance: random.Random, other: Path) -> None:
    path = chance.choice(sorted(folder.iterdir()))
    path.rename(path.with_name(chance.choice(["z.safetensors", "pytorch_model.bin", "model.safetensors", "x"])))


def delete(folder: Path, chance: random.Random, other: Path) -> None:
    chance.choice(sorted(folder.iterdir())).unlink()


def truncate(folder: Path, chance: random.Random, other: Path) -> None:
    path = chance.choice(sorted(folder.iterdir()))
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def swap(folder: Path, chance: random.Random, other: Path) -> None:
    first, second = chance.sample(sorted(folder.iterdir()), 2)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def take_from_another(folder: Path, chance: random.Random, other: Path) -> None:
    path = chance.choice(sorted(other.iterdir()))
    shutil.copy(path, folder / path.name)


def add(folder: Path, chance: random.Random, other: Path) -> None:
    name = chance.choice(["z.safetensors", "adapter_config.json", "pytorch_model.bin", "model.safetensors.index.json",
                          "custom_generate.py", "a.safetensors", "adapter_model.safetensors"])  # fmt: skip
    content = '{"base_model_name_or_path": "nobody/nowhere", "weight_map": {"a": "/etc/passwd"}, "peft_type": "LORA"}'
    if name.endswith("tensors"):
        shutil.copy(chance.choice(sorted(other.glob("*.safetensors"))), folder / name)
    else:
        (folder / name).write_text(content)


def link(folder: Path, chance: random.Random, other: Path) -> None:
    path = chance.choice(sorted(folder.iterdir()))
    path.unlink()
    path.symlink_to(chance.choice(sorted(other.iterdir())))


def lose_manifest(folder: Path, chance: random.Random, other: Path) -> None:
    (folder / "ecospa.json").unlink()


def lose_manifest_and_edit(folder: Path, chance: random.Random, other: Path) -> None:
    lose_manifest(folder, chance, other)
    chance.choice([edit_json, delete, truncate, swap, add, take_from_another])(folder, chance, other)


KINDS_OF_EDIT: tuple[Edit, ...] = (
    edit_json, edit_json, edit_json, rename, delete, truncate, swap, take_from_another, add, link, lose_manifest,
    lose_manifest_and_edit, lose_manifest_and_edit,
)  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def outcome(folder: Path, kind: str, expected: torch.Tensor, what: str) -> str:
    before = content(folder)
    try:
        model = ecospa.from_pretrained(folder)
    except ecospa.CheckpointError as error:
        assert "ecospa-" not in str(error), "the message names a folder that nobody knows"
        result = "refused"
    except Exception as error:
        raise AssertionError(f"{what} of {kind}: {type(error).__name__}: {error}") from error
    else:
        with torch.no_grad():
            assert torch.equal(logits(model, inputs(kind)), expected), f"{what} of {kind} was accepted, and is wrong"
        result = "accepted"
    assert content(folder) == before, f"{what}: reading changed the folder"
    return result


def try_edits(saved: dict[str, tuple[Path, Any]], count: int, place: Path) -> dict[str, int]:
    found = {"refused": 0, "accepted": 0}
    for number in range(count):
        chance = random.Random(number)
        kind, edit = chance.choice(sorted(SAVED)), chance.choice(KINDS_OF_EDIT)
        other = saved[chance.choice([name for name in SAVED if name != kind])][0]
        folder = place / f"{number}"
        shutil.copytree(saved[kind][0], folder)
        edit(folder, chance, other)
        found[outcome(folder, kind, saved[kind][1], f"edit {number} ({edit.__name__})")] += 1
        shutil.rmtree(folder)
    return found


def try_flips(saved: dict[str, tuple[Path, Any]], count: int, place: Path) -> dict[str, int]:
    found = {"refused": 0, "accepted": 0}
    for kind, (source, _) in saved.items():
        shutil.copytree(source, place / kind)
    for number in range(count):
        chance = random.Random(number)
        kind = chance.choice(sorted(SAVED))
        path = chance.choice(sorted((place / kind).iterdir()))
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        found[outcome(place / kind, kind, saved[kind][1], f"flip {number} in {path.name}")] += 1
        path.write_bytes(whole)
    return found


def test_edits_are_refused_or_harmless(saved: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    found = try_edits(saved, EDITS, tmp_path)
    assert found["refused"] > EDITS / 2


def test_flipped_bytes_are_refused_or_harmless(saved: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    found = try_flips(saved, FLIPS, tmp_path)
    assert found["refused"] > FLIPS * 0.9  # white space of the manifest may change


@pytest.mark.fuzz
def test_many_edits(saved: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    print(f"{LARGE_EDITS} edits: {try_edits(saved, LARGE_EDITS, tmp_path)}")


@pytest.mark.fuzz
def test_many_flips(saved: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    print(f"{LARGE_FLIPS} flipped bytes: {try_flips(saved, LARGE_FLIPS, tmp_path)}")
