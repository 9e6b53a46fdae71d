"""Store of records: an append-only folder in which a file is either whole or absent.

Runs are expensive and several may end at once, on a full disk or under Ctrl-C. So a record is written to a temporary
file, forced to disk, and only then given its final name by a hard link, which fails if that name is taken. Nothing here
edits or deletes a record. Bookkeeping of the suite; no part of the paper.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from results.printable import printable
from results.record import RunRecord, utc
from results.strict import RecordError

DEFAULT_FOLDER = Path(__file__).parent / "records"


class Store:
    """The records below one folder, `<folder>/<experiment>/<tier>-<method>-<id>.json`."""

    def __init__(self, folder: str | os.PathLike[str] = DEFAULT_FOLDER) -> None:
        self.folder = Path(folder)

    def path(self, record: RunRecord) -> Path:
        """Return the one file name that `record` can have in this store."""
        return self.folder / record.experiment / f"{record.tier}-{record.method}-{record.id}.json"

    def append(self, record: RunRecord) -> Path:
        """Write `record` as a new file and return its path; RecordError if it exists or cannot be written whole."""
        text = record.to_json()
        # Reading it back first: a configuration changed in place after its hash was taken must not reach the disk.
        RunRecord.from_json(text, source=f"record {record.id}, not written")
        final = self.path(record)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            _write_exclusively(final, text.encode())
        except FileExistsError as error:
            raise RecordError(f"{final}: exists and is kept; a new run needs a new id (results.new_id)") from error
        except OSError as error:
            raise RecordError(
                f"{final}: could not be written ({error.strerror or error}) and nothing was left behind; "
                "free space or choose a writable folder on a file system with hard links, and append again"
            ) from error
        return final

    def read(self, path: str | os.PathLike[str]) -> RunRecord:
        """Return the record in the file `path`; RecordError naming the file if it is not whole and in its place."""
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecordError(f"{path}: cannot be read ({error}); restore it from version control") from error
        record = RunRecord.from_json(text, source=str(path))
        own = self.path(record)
        if (path.parent.name, path.name) != (own.parent.name, own.name):
            raise RecordError(f"{path}: holds the record of {own.parent.name}/{own.name}; give the file back that name")
        return record

    def records(
        self,
        experiment: str | None = None,
        tier: str | None = None,
        method: str | None = None,
        status: str | None = "finished",
    ) -> list[RunRecord]:
        """Return the records that match, oldest first; None matches all. RecordError if a file in reach is damaged."""
        found = (self.read(path) for path in sorted(self.folder.glob(f"{experiment or '*'}/*.json")))
        wanted = {"tier": tier, "method": method, "status": status}
        chosen = [
            record
            for record in found
            if all(value is None or getattr(record, name) == value for name, value in wanted.items())
        ]
        return sorted(chosen, key=lambda record: (utc(record.start), record.id))

    def readable(self, tier: str | None = None, status: str | None = "finished") -> tuple[list[RunRecord], list[str]]:
        """Return the records that match, oldest first, and what is wrong with the files that are none.

        A damaged file is told where it could belong to the tier, by its name.
        """
        found, damaged = [], []
        for path in sorted(self.folder.glob("*/*.json")):
            if tier is not None and not path.name.startswith(f"{tier}-"):
                continue  # the name is part of a record: `read` would refuse another
            try:
                found.append(self.read(path))
            except RecordError as error:
                damaged.append(printable(str(error)))
        chosen = [
            record
            for record in found
            if (tier is None or record.tier == tier) and (status is None or record.status == status)
        ]
        return sorted(chosen, key=lambda record: (utc(record.start), record.id)), damaged

    def find(self, config_hash: str, seed: int, tier: str) -> RunRecord | None:
        """Return the newest finished record of one configuration, seed and tier, or None: what is left to run."""
        matches = [
            record for record in self.records(tier=tier) if record.config_hash == config_hash and record.seed == seed
        ]
        return matches[-1] if matches else None


class Snapshot(Store):
    """A store whose files are read once: for many tables of records that nobody replaces meanwhile."""

    def __init__(self, folder: str | os.PathLike[str] = DEFAULT_FOLDER) -> None:
        super().__init__(folder)
        self._known: dict[Path, RunRecord] = {}

    def read(self, path: str | os.PathLike[str]) -> RunRecord:
        """Return the record in a file as it was when it was first read; see `Store.read`."""
        own = Path(path)
        if own not in self._known:
            self._known[own] = super().read(own)
        return self._known[own]


def probe(folder: Path, size: int, links: bool) -> None:
    """Write `size` bytes below `folder` as a record would be, and remove them; OSError if the disk refuses.

    Args:
        folder: made if it is not there.
        size: bytes.
        links: also make the hard link that gives a record its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f".probe-{secrets.token_hex(4)}.part"
    try:
        if links:
            _write_exclusively(final, bytes(size))
        else:
            with final.open("xb") as file:
                file.write(bytes(size))
                file.flush()
                os.fsync(file.fileno())
    finally:
        final.unlink(missing_ok=True)


def _write_exclusively(final: Path, content: bytes) -> None:
    """Make `final` hold `content`, whole or not at all; FileExistsError if it is there, OSError if the disk refuses."""
    # No ".json" ending: what a killed process leaves behind is never taken for a record.
    temporary = final.with_name(f".{final.stem}-{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
