"""A manifest lists what belongs to a folder; nothing else is read, and what it lists is as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ecospa import CheckpointError
from ecospa.manifest import (
    TRAINER_CHECKPOINT,
    only_listed,
    read_manifest,
    renew_manifest,
    verify,
    write_manifest,
    write_whole,
)

SHAPE = {"widths": {"a.qk": 4}, "heads": {"a": 2}, "biases": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    place.mkdir()
    save_file({"weight": torch.ones(3)}, place / "model.safetensors")
    (place / "config.json").write_text('{"architectures": ["X"], "ecospa": {"version": 1, "widths": {"a.qk": 4}}}')
    (place / "optimizer.pt").write_text("state")
    write_manifest(place, ["config.json", "model.safetensors", "optimizer.pt"], SHAPE, TRAINER_CHECKPOINT)
    return place


def edited(folder: Path, **changes: object) -> None:
    path = folder / "ecospa.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_it_says_what_the_folder_is(folder: Path) -> None:
    manifest = verify(folder)
    assert (manifest.holds, manifest.shape, manifest.version) == (TRAINER_CHECKPOINT, SHAPE, 2)
    assert manifest.model_files == ("config.json", "model.safetensors")
    assert not [path for path in folder.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "optimizer.pt"])
def test_a_listed_file_that_changed_or_is_gone_is_named(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(b"\n" + content if name == "config.json" else content[:-1] + b"\0")
    with pytest.raises(CheckpointError, match=f"{name} is truncated or was edited"):
        verify(folder)
    renew_manifest(folder)
    verify(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        verify(folder)


def test_the_model_alone_may_be_read_where_the_trainer_state_is_damaged(folder: Path) -> None:
    (folder / "optimizer.pt").write_text("other")
    verify(folder, model_only=True)
    with pytest.raises(CheckpointError, match=r"optimizer\.pt"):
        verify(folder)


@pytest.mark.parametrize("changes", [{"holds": "x"}, {"widths": {"a.qk": 2}}, {"digest": None}, {"version": 3}])
def test_an_edited_manifest_is_refused(folder: Path, changes: dict[str, object]) -> None:
    edited(folder, **changes)
    with pytest.raises(CheckpointError, match=r"ecospa\.json"):
        verify(folder)


def test_one_of_the_first_version_is_read(folder: Path) -> None:
    content = json.loads((folder / "ecospa.json").read_text())
    old = {"version": 1, **SHAPE, "sha256": content["sha256"]}
    (folder / "ecospa.json").write_text(json.dumps(old))
    manifest = verify(folder)
    assert manifest.version == 1 and manifest.shape == SHAPE


def test_a_lost_one_is_noticed_where_it_was_written_and_not_where_it_never_was(folder: Path) -> None:
    (folder / "ecospa.json").unlink()
    with pytest.raises(CheckpointError, match=r"ecospa\.json is missing.*copy the whole folder"):
        verify(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["ecospa"]["manifest"]  # what transformers' own save writes of a cut model
    (folder / "config.json").write_text(json.dumps(config))
    assert verify(folder).version == 0 and read_manifest(folder) is None


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "..\\outside"])
def test_names_that_leave_the_folder_are_refused(folder: Path, name: str) -> None:
    content = json.loads((folder / "ecospa.json").read_text())
    edited(folder, version=1, digest=None, sha256={**content["sha256"], name: "0"})
    with pytest.raises(CheckpointError):
        verify(folder)


def test_links_that_leave_the_folder_are_refused_but_for_the_cache_of_the_hub(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    outside = tmp_path / "outside"
    weights.rename(outside)
    weights.symlink_to(outside)
    with pytest.raises(CheckpointError, match="a link to a file outside"):
        verify(folder)
    snapshot = tmp_path / "repository" / "snapshots" / "commit"
    snapshot.parent.mkdir(parents=True)
    weights.unlink()
    folder.rename(snapshot)
    (tmp_path / "repository" / "blobs").mkdir()
    outside.rename(tmp_path / "repository" / "blobs" / "digest")
    (snapshot / "model.safetensors").symlink_to("../../blobs/digest")
    verify(snapshot)


def test_index_files_point_at_listed_files_only(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    files = ["config.json", "model.safetensors", index.name]
    index.write_text('{"weight_map": {"weight": "model.safetensors"}}')
    write_manifest(folder, files, SHAPE)
    verify(folder)
    for stray in ("z.safetensors", "/etc/passwd", "../model.safetensors"):
        index.write_text(json.dumps({"weight_map": {"weight": stray}}))
        write_manifest(folder, files, SHAPE)
        with pytest.raises(CheckpointError, match="points at"):
            verify(folder)


def test_two_models_in_a_plain_folder_are_refused(folder: Path) -> None:
    (folder / "ecospa.json").unlink()
    (folder / "config.json").write_text('{"architectures": ["X"]}')
    assert set(verify(folder).sha256) == {"config.json", "model.safetensors"}
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"weight": "model.safetensors"}}')
    with pytest.raises(CheckpointError, match="holds both"):
        verify(folder)


def test_only_listed_files_are_shown(folder: Path) -> None:
    for stray in ("z.safetensors", "adapter_config.json", "pytorch_model.bin", "generation_config.json"):
        (folder / stray).write_text("{}")
    with only_listed(folder, verify(folder)) as place:
        assert sorted(path.name for path in place.iterdir()) == ["config.json", "model.safetensors"]


def test_a_link_in_the_way_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    (tmp_path / "file").symlink_to(outside)
    write_whole(tmp_path / "file", "ours")
    assert outside.read_text() == "theirs" and not (tmp_path / "file").is_symlink()
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_whole(tmp_path / "nowhere" / "file", "ours")
