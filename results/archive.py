"""Records in one file: packed where they were made, imported where they are kept.

The archive is a zip of files as the store has them, `<experiment>/<tier>-<method>-<id>.json`. Nothing of its names is
used as a path: a record goes to the place that the record itself says. Bookkeeping of the suite; no part of the paper.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from results.record import RunRecord
from results.store import Store
from results.strict import RecordError


@dataclass(frozen=True)
class Imported:
    """Outcome of an import: files that were added, records that were there already, and what is wrong with others."""

    added: tuple[Path, ...]
    duplicates: tuple[Path, ...]
    refused: tuple[str, ...]


def pack(records: Iterable[RunRecord], path: str | os.PathLike[str]) -> Path:
    """Write records to an archive; one that is there gets those that it lacks.

    Args:
        records: to be packed.
        path: of the archive.

    Raises:
        RecordError: what is there is no archive of records or holds another record of the same name, or the file
            cannot be written.
    """
    target = Path(path)
    content = dict(_entries(target)) if target.exists() else {}
    for record in records:
        name, text = _name(record), record.to_json().encode()
        if content.setdefault(name, text) != text:
            raise RecordError(f"{target}: holds another record as {name}; pack into a new file")
    try:
        _write(target, content)
    except OSError as error:
        raise RecordError(f"{target}: cannot be written ({error.strerror or error}); choose another file") from error
    return target


def import_records(path: str | os.PathLike[str], store: Store) -> Imported:
    """Append the records of an archive, or of a folder of records, to a store; nothing that is there is overwritten.

    Args:
        path: of the archive or the folder.
        store: gets the records.

    Raises:
        RecordError: there is neither an archive nor a folder of records.
    """
    added: list[Path] = []
    duplicates: list[Path] = []
    refused: list[str] = []
    for name, text in _entries(Path(path)):
        try:
            record = RunRecord.from_json(text.decode("utf-8"), source=name)
            if _name(record) != name:
                raise RecordError(f"{name}: holds the record of {_name(record)}; give the file back that name")
            final = store.path(record)
            if not final.exists():
                added.append(store.append(record))
            elif store.read(final) == record:
                duplicates.append(final)
            else:
                raise RecordError(f"{name}: {final} is another record of that name, and is kept")
        except (RecordError, UnicodeDecodeError) as error:
            refused.append(str(error))
    return Imported(tuple(added), tuple(duplicates), tuple(refused))


def _write(target: Path, content: Mapping[str, bytes]) -> None:
    """Make the archive hold this content, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in sorted(content.items()):
                archive.writestr(name, text)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _name(record: RunRecord) -> str:
    return Store("").path(record).as_posix()


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an archive or of a folder of records, sorted."""
    if path.is_dir():
        files = sorted(path.glob("*/*.json"))
        if not files:
            raise RecordError(f"{path}: has no records <experiment>/<tier>-<method>-<id>.json")
        yield from ((file.relative_to(path).as_posix(), file.read_bytes()) for file in files)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                yield name, archive.read(name)
    except (OSError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path}: is no archive of records ({error}); give a file that --pack has made") from error
