"""Records that could not be written where they belong: a run of days is not to be lost to a full disk at its end.

They stay in the work folder, whole, in a store of their own for each folder of records, and the next call moves them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

from results.record import RunRecord
from results.store import Store
from results.strict import RecordError

FOLDER = "unwritten"


def keep(record: RunRecord, store: Store, work: Path) -> Path:
    """Write a record to the work folder instead of its store.

    Returns:
        Its file.

    Raises:
        RecordError: it cannot be written there either.
    """
    return _beside(store, work).append(record)


def adopt(store: Store, work: Path, experiments: Collection[str], tier: str, say: Callable[[str], None]) -> None:
    """Move what earlier calls could not write to its store; what still cannot stays, and is named.

    Args:
        store: where the records belong.
        work: folder of unfinished work.
        experiments: those that this call holds.
        tier: of this call.
        say: gets a line for every record.
    """
    kept = _beside(store, work)
    for path in sorted(kept.folder.glob(f"*/{tier}-*.json")):
        if path.parent.name not in experiments:
            continue
        try:
            record = kept.read(path)
            final = store.path(record)
            if not final.exists():  # it does where a call was killed between the two steps
                store.append(record)
            path.unlink()
        except (RecordError, OSError) as error:
            say(f"the record {path} is still not where it belongs: {error}")
            continue
        say(f"moved a record of an earlier call to {final}")


def _beside(store: Store, work: Path) -> Store:
    digest = hashlib.sha256(str(store.folder.resolve()).encode(errors="surrogateescape")).hexdigest()[:8]
    return Store(work / FOLDER / digest)
