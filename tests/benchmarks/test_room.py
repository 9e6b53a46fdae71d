"""A folder that cannot keep what a run makes is found before the run, and a result is never lost to one that cannot."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from benchmarks import commands
from benchmarks.__main__ import main
from results import store as storing
from results.store import Store
from tests.benchmarks.tiny_runs import carry_out, tiny_experiment, use_tiny_experiment


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Methods of the runs that have begun."""
    found: list[str] = []
    use_tiny_experiment(monkeypatch, tiny_experiment(("dense", "ecospa")))
    command = commands.run

    def execute(run, place, origin):  # type: ignore[no-untyped-def]
        found.append(run.cell.method)
        return carry_out(run, place, origin)

    monkeypatch.setattr(commands, "run", lambda options, console: command(options, console, execute))
    return found


def run(folder: Path, *words: str) -> int:
    places = ["--records", str(folder / "records"), "--work", str(folder / "work"), "--jobs", "1"]
    return main(["run", "tiny", *places, *words])


def refused(capsys: pytest.CaptureFixture[str], begun: list[str]) -> str:
    assert begun == []
    return capsys.readouterr().out


@pytest.mark.parametrize("option", ["records", "work"])
def test_a_file_is_no_folder(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], begun: list[str]) -> None:
    (tmp_path / option).write_text("a file")
    assert run(tmp_path) == 2
    assert f"{option} is '{tmp_path / option}', which is a file; give a folder" in refused(capsys, begun)


@pytest.mark.parametrize("option", ["records", "work"])
def test_a_folder_below_a_file_is_found_before_the_run(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], begun: list[str]
) -> None:
    (tmp_path / "file").write_text("a file")
    assert run(tmp_path, f"--{option}", str(tmp_path / "file" / "below")) == 2
    assert f"choose another folder with --{option}" in refused(capsys, begun)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("option", ["records", "work"])
def test_a_read_only_folder_is_found_before_the_run(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], begun: list[str]
) -> None:
    (tmp_path / option).mkdir(mode=0o500)
    assert run(tmp_path) == 2
    assert "Permission denied" in refused(capsys, begun)


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("what", ["open", "link", "fsync"])
def test_what_the_disk_refuses_is_found_before_the_run(
    what: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], begun: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own = getattr(os, what)

    def refuse(first, *others, **named):  # type: ignore[no-untyped-def]
        if what == "fsync" or str(first).startswith(str(tmp_path / "records")):
            raise OSError(code, os.strerror(code))
        return own(first, *others, **named)

    monkeypatch.setattr(storing.os, what, refuse)
    assert run(tmp_path) == 2
    told = refused(capsys, begun)
    assert os.strerror(code) in told and "--records" in told
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("option", ["records", "work"])
def test_a_full_disk_is_found_before_the_run(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.disk_usage

    def usage(folder: Path) -> object:
        found = own(folder)
        return found._replace(free=1000) if str(folder).startswith(str(tmp_path / option)) else found

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert run(tmp_path) == 2
    told = refused(capsys, begun)
    assert f"{option} is '{tmp_path / option}', which has 0.0 GB left and needs" in told and f"--{option}" in told


def test_a_record_that_cannot_be_written_is_kept_and_the_next_call_moves_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = storing._write_exclusively

    def full(final: Path, content: bytes) -> None:
        if final.is_relative_to(tmp_path / "records") and final.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")
        own(final, content)

    with monkeypatch.context() as patch:
        patch.setattr(storing, "_write_exclusively", full)
        assert run(tmp_path) == 1
    told = capsys.readouterr().out.replace("\n", "")
    (kept, other) = sorted((tmp_path / "work" / "unwritten").rglob("*.json"))
    assert told.count(str(kept)) == told.count(str(other)) == 2 and "No space left on device" in told
    assert begun == ["dense", "ecospa"] and Store(tmp_path / "records").records() == []
    assert run(tmp_path, "--methods", "dense") == 0
    assert "moved a record of an earlier call" in capsys.readouterr().out
    assert len(Store(tmp_path / "records").records()) == 2 and begun == ["dense", "ecospa"]
    assert not list((tmp_path / "work").rglob("*.json"))
