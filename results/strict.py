"""The checks that records are made of: each returns what it checked, or raises an error that names field and value.

Apart from `record` because they know nothing of runs: they only tell plain, finite, complete JSON from everything else.
Bookkeeping of the suite; no part of the paper.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NoReturn


class RecordError(ValueError):
    """A record that this suite would not write, or could not; the message names file or field, and the way out."""


def fail(field: str, value: object, allowed: str) -> NoReturn:
    """Raise RecordError: `field` has `value`, which is not `allowed`."""
    shown = repr(value)
    raise RecordError(f"field '{field}' is {shown if len(shown) <= 120 else shown[:117] + '...'}; expected {allowed}")


def text(field: str, value: object, empty: bool = False) -> str:
    """Return `value` if it is a text, and not an empty one unless `empty`."""
    if not isinstance(value, str) or not (value or empty):
        fail(field, value, "a text" if empty else "a text that is not empty")
    return value


def match(field: str, value: object, pattern: re.Pattern[str], allowed: str) -> None:
    """Check that `value` is a text that `pattern` matches whole."""
    if not pattern.fullmatch(text(field, value)):
        fail(field, value, allowed)


def integer(field: str, value: object, minimum: int = 0) -> int:
    """Return `value` if it is a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        fail(field, value, f"a whole number, {minimum} or more")
    return value


def number(field: str, value: object, minimum: float = -math.inf) -> float:
    """Return `value` as a float if it is a finite number of at least `minimum`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max and value >= minimum:
            return float(value)
    fail(field, value, "a finite number" + (f", {minimum} or more" if minimum > -math.inf else ""))


def mapping(field: str, value: object) -> Mapping[str, Any]:
    """Return `value` if it is a mapping whose keys are texts."""
    if not isinstance(value, Mapping):
        fail(field, value, "an object with text keys")
    for key in value:
        text(f"{field} (key)", key)
    return value


def sequence(field: str, value: object) -> list[Any] | tuple[Any, ...]:
    """Return `value` if it is a list or tuple."""
    if not isinstance(value, list | tuple):
        fail(field, value, "a list")
    return value


def plain(field: str, value: object) -> Any:
    """Return a deep copy of a plain JSON value, tuples as lists, so that what is written is what is read back."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {key: plain(f"{field}.{key}", item) for key, item in mapping(field, value).items()}
    if isinstance(value, list | tuple):
        return [plain(f"{field}[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    fail(field, value, "plain JSON: text, finite number, true, false, null, list or object")


def exact(field: str, value: object, names: set[str]) -> dict[str, Any]:
    """Return `value` as a dict if its fields are exactly `names`."""
    raw = dict(mapping(field, value))
    unknown, missing = sorted(set(raw) - names), sorted(names - set(raw))
    if unknown or missing:
        fail(field, sorted(raw), f"exactly its own fields; unknown: {unknown}, missing: {missing}")
    return raw


def nested(kind: type[Any], field: str, value: object) -> Any:
    """Return the dataclass `kind` built from exactly its fields in `value`; errors name the path `field`."""
    try:
        return kind(**exact(field, value, {item.name for item in fields(kind)}))
    except RecordError as error:
        raise RecordError(f"in '{field}': {error}") from error


def parse(text: str) -> Any:
    """Return the JSON value of `text`; RecordError if it is truncated, repeats a field or holds NaN or infinity."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            fail("record", [key for key, _ in pairs], "every field once")
        return dict(pairs)

    def constant(name: str) -> NoReturn:
        fail("record", name, "finite numbers only")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RecordError(
            f"not a whole JSON document ({error}); a record is never edited: restore the file from version control, "
            "or move it away and run that cell again"
        ) from error
