"""A folder is replaced as a whole: what is not ours stays, what is in the way is named, dead writers leave nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ecospa import CheckpointError, folders
from ecospa.folders import recover, replacing


def write(folder: Path, text: str) -> None:
    with replacing(folder, lambda name: name == "weights") as side:
        (side / "weights").write_text(text)


@pytest.fixture(params=["one swap", "two renames"])
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "two renames":
        monkeypatch.setattr(folders, "_exchange", lambda first, second: False)
    write(tmp_path / "a" / "model", "old")
    return tmp_path / "a" / "model"


def test_what_is_not_ours_stays(target: Path) -> None:
    (target / "README.md").write_text("mine")
    (target / "logs").mkdir()
    (target / "logs" / "deep").write_text("deep")
    (target / "link").symlink_to("/nowhere")
    with (target / "events").open("a") as stream:
        stream.write("one ")
        stream.flush()
        write(target, "new")
        stream.write("two")
    assert (target / "weights").read_text() == "new"
    assert (target / "README.md").read_text() == "mine" and (target / "logs" / "deep").read_text() == "deep"
    assert (target / "events").read_text() == "one two", "a file that is open for writing is another one now"
    assert os.readlink(target / "link") == "/nowhere"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_inside_changes_nothing(target: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), replacing(target, lambda name: True) as side:
        (side / "weights").write_text("half")
        raise error
    assert (target / "weights").read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_an_error_of_the_system_is_ours(target: Path) -> None:
    full = pytest.raises(CheckpointError, match=r"No space left on device.*it is as it was")
    with full, replacing(target, lambda name: True):
        raise OSError(28, "No space left on device")
    assert (target / "weights").read_text() == "old"


def test_links_files_and_the_working_folder_are_refused(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, file = target.parent / "link", target.parent / "file"
    link.symlink_to(target)
    file.write_text("mine")
    (target / "inside").mkdir()
    with pytest.raises(CheckpointError, match="is a link to"):
        write(link, "new")
    with pytest.raises(CheckpointError, match="is a file"):
        write(file, "new")
    monkeypatch.chdir(target / "inside")
    with pytest.raises(CheckpointError, match="holds the working folder"):
        write(target, "new")
    assert (target / "weights").read_text() == "old" and file.read_text() == "mine" and link.is_symlink()


def test_leftovers_of_dead_writers_go_and_those_of_live_ones_stay(target: Path) -> None:
    dead, live = target.parent / ".model.saving-dead", target.parent / ".model.saving-live"
    other = target.parent / ".model2.saving-dead"
    for folder in (dead, live, other):
        folder.mkdir()
    outside = target.parent.parent / "outside"
    outside.mkdir()
    (target.parent / ".model.saving-link").symlink_to(outside)
    lock = folders._lock(live)
    assert lock is not None
    write(target, "new")
    assert not dead.exists() and live.exists() and other.exists() and outside.exists()
    os.close(lock)
    write(target, "newer")
    assert not live.exists() and (target / "weights").read_text() == "newer"


def test_what_a_dead_writer_moved_aside_is_put_back(target: Path) -> None:
    target.rename(target.parent / ".model.replaced-0123")
    recover(target)
    assert (target / "weights").read_text() == "old"
    (target.parent / ".model.replaced-4567").mkdir()
    recover(target)
    assert (target / "weights").read_text() == "old", "nothing is put back over a folder that is there"


def test_a_name_that_is_a_pattern_is_only_a_name(tmp_path: Path) -> None:
    write(tmp_path / "m[a-z]*", "old")
    (tmp_path / ".mx.saving-1").mkdir()
    write(tmp_path / "m[a-z]*", "new")
    assert (tmp_path / ".mx.saving-1").exists() and (tmp_path / "m[a-z]*" / "weights").read_text() == "new"
