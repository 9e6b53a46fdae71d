"""Difference of two records: every field of what was asked and where it ran in which they disagree.

Two runs of one configuration and seed on one machine agree bitwise; so when numbers differ, something named here does.
Bookkeeping of the suite; no part of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from results.record import RunRecord

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """One field: `part` is protocol, data, model, ..., code, versions, device or results; values as they were."""

    part: str
    field: str
    first: Any
    second: Any


def causes(first: RunRecord, second: RunRecord) -> tuple[Difference, ...]:
    """Return all that may explain different numbers: configuration, seed, data, code, versions, device."""
    found = list(_configurations(first.config, second.config))
    found += _unequal("run", {"seed": first.seed}, {"seed": second.seed})
    found += _unequal("data", _data(first), _data(second))
    found += _unequal("code", _code(first), _code(second))
    found += _unequal("versions", first.versions, second.versions)
    found += _unequal("device", first.device, second.device)
    return tuple(found)


def effects(first: RunRecord, second: RunRecord) -> tuple[Difference, ...]:
    """Return the outcomes that differ: status and metrics."""
    outcomes = [
        {"status": record.status, **{name: metric.value for name, metric in record.metrics.items()}}
        for record in (first, second)
    ]
    return tuple(_unequal("results", *outcomes))


def _configurations(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Nested settings stand under their own part, the others under "run"."""
    found = []
    for name in sorted({*first, *second}):
        mine, other = first.get(name, {}), second.get(name, {})
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            found += _unequal(name, mine, other)
        else:
            found += _unequal("run", {name: first.get(name, ABSENT)}, {name: second.get(name, ABSENT)})
    return found


def _unequal(part: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(part, name, first.get(name, ABSENT), second.get(name, ABSENT))
        for name in sorted({*first, *second})
        if first.get(name, ABSENT) != second.get(name, ABSENT)
    ]


def _data(record: RunRecord) -> dict[str, Any]:
    calibration = record.payload.get("calibration")
    given = calibration if isinstance(calibration, Mapping) else {}
    return {"fingerprint": record.data_fingerprint, **{f"calibration {name}": value for name, value in given.items()}}


def _code(record: RunRecord) -> dict[str, Any]:
    changed = {"commit": record.commit, "uncommitted changes": record.dirty}
    return {**changed, "record format": record.schema_version}
