"""Record of one run: an immutable value that is checked both when it is made and when it is read.

A table is only as trustworthy as its weakest record, so nothing is guessed here: an unknown field, a missing field, a
wrong type, a number that is not finite or a configuration that does not match its hash is an error, never a default.
Bookkeeping of the suite; no part of the paper.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from results.plan_history import PlanEvent, checked, from_columns, from_events, to_columns
from results.strict import (
    RecordError,
    exact,
    fail,
    integer,
    mapping,
    match,
    nested,
    number,
    parse,
    plain,
    sequence,
    text,
)

SCHEMA_VERSION = 2
READABLE = (1, SCHEMA_VERSION)
"""Versions that are read, and written back as they were; 1 has its history event by event and no `method_info`."""
MAX_CURVE_POINTS = 200
STATUSES = ("finished", "failed")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")
"""Pattern of names that become parts of a path: experiments, methods, tiers."""
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


@dataclass(frozen=True)
class Metric:
    """One measured number: value, unit ("" for a ratio), direction (None = neither is better), n samples behind it."""

    value: float
    unit: str
    higher_is_better: bool | None
    n: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", number("value", self.value))
        text("unit", self.unit, empty=True)
        if self.higher_is_better is not None and not isinstance(self.higher_is_better, bool):
            fail("higher_is_better", self.higher_is_better, "true, false or null")
        integer("n", self.n, minimum=1)


@dataclass(frozen=True)
class MethodInfo:
    """A method as tables show it: title, what it removes (structures, zeros or nothing), and the group it stands in."""

    title: str
    removes: str
    group: str

    def __post_init__(self) -> None:
        for name in ("title", "removes", "group"):
            text(name, getattr(self, name))


@dataclass(frozen=True)
class RunRecord:
    """One run: what was asked (config, seed), where it ran (commit, versions, device) and what came out.

    `start` is ISO-8601 in UTC, `seconds` wall-clock time, `loss_curve` at most 200 (step, loss) points, `plan_history`
    the size after every shrink event with the dense model at step 0, `payload` free JSON such as curves and texts,
    `method_info` how tables call the method, None where what was run is no method or the record is of schema 1.
    """

    schema_version: int
    id: str
    experiment: str
    method: str
    tier: str
    config: dict[str, Any]
    config_hash: str
    seed: int
    commit: str
    dirty: bool
    versions: dict[str, str]
    device: dict[str, Any]
    command: str
    data_fingerprint: str
    start: str
    seconds: float
    metrics: dict[str, Metric]
    plan_history: tuple[PlanEvent, ...]
    loss_curve: tuple[tuple[int, float], ...]
    status: str
    error: str | None
    payload: dict[str, Any]
    method_info: MethodInfo | None = None

    def __post_init__(self) -> None:
        self._check_identity()
        self._check_origin()
        self._check_outcome()

    def to_json(self) -> str:
        """Return the record as JSON, one top-level field per line, so that a file is readable and two files compare."""
        raw = asdict(self)
        if self.schema_version == 1:
            del raw["method_info"]
        else:
            raw["plan_history"] = to_columns(self.plan_history)
        lines = (f"{json.dumps(key)}: {json.dumps(raw[key], sort_keys=True, allow_nan=False)}" for key in raw)
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, source: str = "record") -> RunRecord:
        """Return the record in `text`; raises RecordError that names `source` and the field when anything is off."""
        try:
            raw = _fields(cls, mapping("record", parse(text)))
            raw["metrics"] = {
                name: nested(Metric, f"metrics.{name}", value)
                for name, value in mapping("metrics", raw["metrics"]).items()
            }
            read = from_events if raw["schema_version"] == 1 else from_columns
            raw["plan_history"] = read(raw["plan_history"])
            if raw.get("method_info") is not None:
                raw["method_info"] = nested(MethodInfo, "method_info", raw["method_info"])
            return cls(**raw)
        except RecordError as error:
            raise RecordError(f"{source}: {error}") from error

    def _check_identity(self) -> None:
        _check_version(self.schema_version)
        match("id", self.id, _ID, "the form 20261123T235959Z-0123abcd, made by results.new_id(start)")
        for name in ("experiment", "method", "tier"):
            match(name, getattr(self, name), NAME, "letters, digits, '_' and '.', because it names a file")
        object.__setattr__(self, "config", plain("config", mapping("config", self.config)))
        for name in ("experiment", "method", "tier"):
            if self.config.get(name, getattr(self, name)) != getattr(self, name):
                fail(f"config.{name}", self.config[name], f"{getattr(self, name)!r}, as in the record's own field")
        expected = config_hash(self.config)
        if self.config_hash != expected:
            fail("config_hash", self.config_hash, f"{expected}, the hash of its config; one of the two was edited")
        integer("seed", self.seed)
        if self.method_info is not None and (self.schema_version == 1 or not isinstance(self.method_info, MethodInfo)):
            fail("method_info", self.method_info, "a MethodInfo or null; null in schema 1")

    def _check_origin(self) -> None:
        for name in ("commit", "command", "data_fingerprint"):
            text(name, getattr(self, name))
        if not isinstance(self.dirty, bool):
            fail("dirty", self.dirty, "true or false")
        for name, version in mapping("versions", self.versions).items():
            text(f"versions.{name}", version)
        object.__setattr__(self, "versions", dict(self.versions))
        object.__setattr__(self, "device", plain("device", mapping("device", self.device)))
        utc(self.start)
        object.__setattr__(self, "seconds", number("seconds", self.seconds, minimum=0.0))

    def _check_outcome(self) -> None:
        for name, metric in mapping("metrics", self.metrics).items():
            if not isinstance(metric, Metric):
                fail(f"metrics.{name}", metric, "a Metric")
        object.__setattr__(self, "metrics", dict(self.metrics))
        object.__setattr__(self, "plan_history", checked(self.plan_history))
        self._check_curve()
        if self.status not in STATUSES:
            fail("status", self.status, f"one of {', '.join(STATUSES)}")
        if self.status == "failed":
            text("error", self.error)
        elif self.error is not None:
            fail("error", self.error, "null in a finished run")
        object.__setattr__(self, "payload", plain("payload", mapping("payload", self.payload)))

    def _check_curve(self) -> None:
        curve = sequence("loss_curve", self.loss_curve)
        if len(curve) > MAX_CURVE_POINTS:
            fail("loss_curve", f"{len(curve)} points", f"at most {MAX_CURVE_POINTS} points; thin it out")
        points: list[tuple[int, float]] = []
        for index, point in enumerate(curve):
            if len(sequence(f"loss_curve[{index}]", point)) != 2:
                fail(f"loss_curve[{index}]", point, "a pair (step, loss)")
            step = integer(f"loss_curve[{index}][0]", point[0])
            points.append((step, number(f"loss_curve[{index}][1]", point[1])))
            if index and step <= points[index - 1][0]:
                fail(f"loss_curve[{index}][0]", step, "steps in strictly ascending order")
        object.__setattr__(self, "loss_curve", tuple(points))


def _check_version(version: object) -> None:
    if isinstance(version, bool) or version not in READABLE:
        fail("schema_version", version, f"{' or '.join(map(str, READABLE))}, the versions that this checkout reads")


def _fields(kind: type[RunRecord], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return exactly the fields that a record of its version has."""
    names = {field.name for field in fields(kind)}
    if "schema_version" in raw:
        _check_version(raw["schema_version"])
        names -= {"method_info"} if raw["schema_version"] == 1 else set()
    return exact("record", raw, names)


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of sha256 of the canonical (sorted) JSON of `config`; RecordError if no JSON."""
    normal = plain("config", mapping("config", config))
    canonical = json.dumps(normal, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def new_id(start: str) -> str:
    """Return a fresh record id, e.g. 20261123T235959Z-0123abcd, for an ISO-8601 UTC `start`; RecordError if not one."""
    return f"{utc(start):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def utc(start: str) -> datetime:
    """Return ISO-8601 `start` as a UTC time; RecordError when it is no time or carries another offset or none."""
    try:
        moment = datetime.fromisoformat(text("start", start))
    except ValueError:
        fail("start", start, "an ISO-8601 time in UTC such as 2026-11-23T23:59:59+00:00")
    if moment.utcoffset() != timedelta(0):
        fail("start", start, "a time in UTC, ending in Z or +00:00")
    return moment
