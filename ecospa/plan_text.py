"""The JSON text of a plan, read strictly: what Python's reader forgives would change which indices stay."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

_REQUIRED = ("version", "widths", "kept", "parameters_before", "parameters_after")
_OPTIONAL = ("reason",)  # plans written before there were width rules have none
LARGEST = 2**63 - 1
"""The largest number that a tensor of positions holds; Python writes integers of any length only up to a limit."""
_SHOWN = 120


def fields_of(
    text: str, required: Collection[str] = _REQUIRED, optional: Collection[str] = _OPTIONAL
) -> dict[str, Any]:
    """The fields of a plan's text, or of another object's, not yet looked at.

    Args:
        text: JSON, one object.
        required: the fields that it has; those of a plan.
        optional: further ones that it may have.

    Raises:
        ValueError: no text, no JSON, NaN or infinity, a key given twice, or a field that is missing or unknown.
    """
    if not isinstance(text, str):
        raise ValueError(f"it is {type(text).__name__}, not text")
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}, not an object")
    if missing := [name for name in required if name not in content]:
        raise ValueError(f"it lacks the field {missing[0]!r}")
    if unknown := [name for name in content if name not in (*required, *optional)]:
        raise ValueError(f"it has the unknown field {shown(unknown[0])!r}")
    return content


def rows_of(value: Any) -> list[list[int]]:
    """Rows of equal length of whole numbers, checked one by one: tensors would round what is none.

    Raises:
        ValueError: something else, or rows of unequal length.
    """
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise ValueError("kept must be a list of rows, one per group")
    if len({len(row) for row in value}) > 1:
        raise ValueError("kept has rows of unequal length; all groups keep the same number of positions")
    for number in (number for row in value for number in row):
        if type(number) is not int or not 0 <= number <= LARGEST:  # a bool is an int to Python
            raise ValueError(f"kept holds {shown(number)}; positions are whole numbers from 0 on")
    return value


def shown(value: object) -> str:
    """Abbreviate a foreign value for a message: short, and printable everywhere."""
    text = value if isinstance(value, str) else _written(value)
    return text[:_SHOWN].encode("ascii", "backslashreplace").decode()


def _written(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes, or a nest of lists
        return f"a {type(value).__name__} that is too large to show"


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(items)
    if len(content) < len(items):
        names = [name for name, _ in items]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {shown(twice)!r} twice")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no JSON")
