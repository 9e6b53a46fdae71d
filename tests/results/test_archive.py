"""Records of another machine: packed, imported once, never overwritten."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from results import RecordError, Store
from results.__main__ import main
from results.archive import import_records, pack
from tests.results.factory import make_record


def files(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.glob("*/*.json")}


def test_what_is_packed_is_imported_as_it_was(tmp_path: Path) -> None:
    records = [make_record(1), make_record(2, experiment="compare", method="dense")]
    there, here = Store(tmp_path / "there"), Store(tmp_path / "here")
    for record in records:
        there.append(record)
    outcome = import_records(pack(records, tmp_path / "made" / "records.zip"), here)
    assert len(outcome.added) == 2 and outcome.duplicates == outcome.refused == ()
    assert files(here) == files(there)
    assert here.records() == there.records()


def test_a_second_call_adds_to_the_archive(tmp_path: Path) -> None:
    archive = pack([make_record(1)], tmp_path / "records.zip")
    pack([make_record(1), make_record(2)], archive)
    assert len(import_records(archive, Store(tmp_path / "here")).added) == 2
    with pytest.raises(RecordError, match="holds another record"):
        pack([make_record(2, seed=5)], archive)
    assert list(tmp_path.glob(".*")) == []


def test_duplicates_are_refused_by_saying_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive, here = pack([make_record(1), make_record(2)], tmp_path / "records.zip"), tmp_path / "here"
    Store(here).append(make_record(1))
    before = files(Store(here))
    assert main(["import", str(archive), "--records", str(here)]) == 0
    out = capsys.readouterr().out
    assert f"refused, it is there already: {Store(here).path(make_record(1))}" in out
    assert "1 records added, 1 there already, 0 refused" in out
    assert before.items() <= files(Store(here)).items()


def test_nothing_that_is_there_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive, here = pack([make_record(1, seed=3)], tmp_path / "records.zip"), Store(tmp_path / "here")
    here.append(make_record(1))
    before = files(here)
    assert main(["import", str(archive), "--records", str(here.folder)]) == 1
    assert "is another record of that name, and is kept" in capsys.readouterr().err
    assert files(here) == before


def test_damaged_and_misplaced_records_are_refused_and_the_others_added(tmp_path: Path) -> None:
    text, here = make_record(1).to_json(), Store(tmp_path / "here")
    with zipfile.ZipFile(tmp_path / "records.zip", "w") as archive:
        archive.writestr(here.path(make_record(1)).relative_to(here.folder).as_posix(), text)
        archive.writestr("../../escaped.json", text)
        archive.writestr("coupled_vs_uncoupled/edited.json", text.replace('"seed": 0', '"seed": -1'))
        archive.writestr("coupled_vs_uncoupled/cut.json", text[:100])
        archive.writestr("coupled_vs_uncoupled/bytes.json", b"\xff\xfe")
    outcome = import_records(tmp_path / "records.zip", here)
    assert outcome.added == (here.path(make_record(1)),)
    assert len(outcome.refused) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "records.zip"]


def test_a_folder_of_records_is_imported_too(tmp_path: Path) -> None:
    there = Store(tmp_path / "there")
    there.append(make_record(1))
    (there.folder / "README.md").write_text("of the machine that made them")
    assert len(import_records(there.folder, Store(tmp_path / "here")).added) == 1


@pytest.mark.parametrize("name", ["nothing.zip", "text.zip", "empty"])
def test_what_is_no_archive_is_told(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "empty").mkdir()
    assert main(["import", str(tmp_path / name), "--records", str(tmp_path / "here")]) == 1
    assert name in capsys.readouterr().err


def test_an_archive_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be written"):
        pack([replace(make_record(1), seed=1)], tmp_path / "file" / "records.zip")
