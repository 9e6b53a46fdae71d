"""Records that are whole and yet odd: a table must say so in one cell, not end because of it.

A store keeps what runs wrote, for ever, and the run of a custom method may write anything that is JSON: numbers beyond
what can be added up, settings of other types, half characters. What such a record spoils is left out and named; the
rest is made.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from paper_tables.analysis.intervals import LARGEST
from results import RunRecord
from results.printable import printable

_MOST_LEFT_OUT = 20
_TEXTS = ("config", "device", "versions", "payload", "command", "commit", "data_fingerprint", "error")

Result = TypeVar("Result")
LeftOut = tuple[tuple[RunRecord, str], ...]


def legible(record: RunRecord) -> RunRecord:
    """Return the record with texts that can be written and drawn; itself where they can be already."""
    changed = {}
    for name in _TEXTS:
        value = getattr(record, name)
        clean = _clean(value)
        if clean is not value:
            changed[name] = clean
    if not changed:
        return record
    made = copy.copy(record)
    for name, value in changed.items():
        object.__setattr__(made, name, value)  # past the checks: the hash is that of what the run wrote
    return made


def oddity(record: RunRecord) -> str | None:
    """Return what is odd about the numbers of a record, or None."""
    odd = [f"{name} {metric.value:g}" for name, metric in record.metrics.items() if abs(metric.value) > LARGEST]
    return f"out of range: {', '.join(odd)}" if odd else None


def sound(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records whose numbers can be judged."""
    return [record for record in records if oddity(record) is None]


def without_odd(
    build: Callable[[Sequence[RunRecord]], Result], records: Sequence[RunRecord]
) -> tuple[Result | None, LeftOut]:
    """Return what `build` makes of the records, without those that it cannot take.

    Args:
        build: raises for odd records; what it raises without any record is its own fault and passed on.
        records: all of them.

    Returns:
        The result, None where too many records had to be left out; and those records, each with why.
    """
    kept, left_out = list(records), list[tuple[RunRecord, str]]()
    while len(left_out) <= _MOST_LEFT_OUT:
        try:
            return build(kept), tuple(left_out)
        except Exception as error:  # anything may be wrong with them; it is told with the record's name
            culprit = _first_failing(build, kept, error)
            told = " ".join(printable(str(error)).split())[:200]
            left_out.append((kept.pop(culprit), f"{type(error).__name__}: {told}"))
    return None, tuple(left_out)


def _first_failing(build: Callable[[Sequence[RunRecord]], Any], records: Sequence[RunRecord], error: Exception) -> int:
    """Return the place of the record with which `build` begins to fail."""
    if not _builds(build, ()):
        raise error
    whole, broken = 0, len(records)  # the first `whole` can be built from, the first `broken` cannot
    while broken - whole > 1:
        middle = (whole + broken) // 2
        if _builds(build, records[:middle]):
            whole = middle
        else:
            broken = middle
    return broken - 1


def _builds(build: Callable[[Sequence[RunRecord]], Any], records: Sequence[RunRecord]) -> bool:
    try:
        build(records)
    except Exception:
        return False
    return True


def _clean(value: Any) -> Any:
    """Return a value of JSON with printable texts; the same object where nothing changes."""
    if isinstance(value, str):
        clean = printable(value)
        return value if clean == value else clean
    if isinstance(value, dict):
        pairs = [(_clean(key), _clean(item)) for key, item in value.items()]
        same = all(a is c and b is d for (a, b), (c, d) in zip(value.items(), pairs, strict=True))
        return value if same else dict(pairs)
    if isinstance(value, list | tuple):
        items = [_clean(item) for item in value]
        return value if all(a is b for a, b in zip(value, items, strict=True)) else items
    return value
