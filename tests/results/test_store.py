"""The store only ever adds whole files: nothing is overwritten, and no accident leaves half a record."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from results import RecordError, Store
from results.store import Snapshot
from tests.results.factory import make_record


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    store, record = Store(tmp_path), make_record(3, metrics={"perplexity": 20.0})
    path = store.append(record)
    assert path == tmp_path / "coupled_vs_uncoupled" / f"smoke-ecospa-{record.id}.json"
    assert store.read(path) == record
    assert files(tmp_path) == [path]


def test_the_same_id_twice_keeps_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.append(make_record(3, seconds=1.0))
    with pytest.raises(RecordError, match="exists and is kept"):
        store.append(make_record(3, seconds=2.0))
    assert store.read(path).seconds == 1.0
    assert files(tmp_path) == [path]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "link"])
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*args: object, **kwargs: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(RecordError, match=r"No space left on device.*nothing was left behind"):
            store.append(make_record())
    assert files(tmp_path) == []
    assert store.read(store.append(make_record())) == make_record()


def test_a_disk_that_fills_up_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = os.write, []

    def half(descriptor: int, content: memoryview) -> int:
        calls.append(len(content))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, bytes(content[: len(content) // 2]))

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(RecordError, match="No space left"):
        Store(tmp_path).append(make_record())
    assert len(calls) == 2
    assert files(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, bytes(content[:100])))
    store = Store(tmp_path)
    assert store.read(store.append(make_record())) == make_record()


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_an_interrupt_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def interrupted(*args: object, **kwargs: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).append(make_record())
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="could not be written"):
        Store(tmp_path / "file").append(make_record())


def test_a_configuration_changed_after_its_hash_does_not_reach_the_disk(tmp_path: Path) -> None:
    record = make_record()
    record.config["training"]["steps"] = 999
    with pytest.raises(RecordError, match="config_hash"):
        Store(tmp_path).append(record)
    assert files(tmp_path) == []


def test_what_a_killed_process_left_is_no_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.append(make_record())
    (path.parent / ".smoke-ecospa-1234.part").write_text('{"half": ')
    assert store.records() == [make_record()]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    path = store.append(make_record())
    path.write_bytes(content)
    with pytest.raises(RecordError, match=path.name):
        store.records()


def test_a_copied_record_under_another_name_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.append(make_record())
    path.rename(path.with_name("smoke-dense-copy.json"))
    with pytest.raises(RecordError, match="give the file back that name"):
        store.records()


def test_records_are_filtered_and_sorted_by_start(tmp_path: Path) -> None:
    store = Store(tmp_path)
    late, early = make_record(9), make_record(1)
    dense = make_record(5, method="dense", target=None)
    other = make_record(4, tier="cpu")
    elsewhere = make_record(2, experiment="mismatch_error")
    failed = make_record(6, status="failed", error="boom")
    for record in (late, early, dense, other, elsewhere, failed):
        store.append(record)
    assert store.records() == [early, elsewhere, other, dense, late]
    assert store.records(experiment="coupled_vs_uncoupled", tier="smoke") == [early, dense, late]
    assert store.records(method="dense") == [dense]
    assert store.records(status="failed") == [failed]
    assert len(store.records(status=None)) == 6
    assert store.records(experiment="unheard_of") == []


def test_an_empty_store_has_no_records(tmp_path: Path) -> None:
    assert Store(tmp_path / "absent").records() == []
    assert Store(tmp_path / "absent").find("0" * 16, 0, "smoke") is None


def test_find_returns_the_newest_finished_record_of_a_cell(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, new = make_record(1), make_record(2)
    for record in (new, old, make_record(3, status="failed", error="boom"), make_record(4, seed=1)):
        store.append(record)
    assert store.find(new.config_hash, 0, "smoke") == new
    assert store.find(new.config_hash, 2, "smoke") is None
    assert store.find(new.config_hash, 0, "cpu") is None
    assert store.find("0" * 16, 0, "smoke") is None


def test_a_snapshot_reads_every_file_once(tmp_path: Path) -> None:
    store, snapshot = Store(tmp_path), Snapshot(tmp_path)
    path = store.append(make_record(1))
    assert snapshot.records() == store.records()
    path.write_text("{")
    assert snapshot.records() == [make_record(1)] == snapshot.readable()[0]
    store.append(make_record(2))
    assert len(snapshot.readable()[0]) == 2
