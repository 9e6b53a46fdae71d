"""Size of a model over its shrink events, and how it is written: column by column, because names repeat every event.

A run of forty events names each of its pairs once instead of forty times. Bookkeeping of the suite; no part of the
paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from results.strict import exact, fail, integer, mapping, nested, sequence

SIZES = ("step", "parameters", "block_parameters")
"""Columns of whole numbers; `widths` holds one more column per pair."""


@dataclass(frozen=True)
class PlanEvent:
    """Size of the model after `step` optimizer steps: all and block parameters (counts), width of each coupled pair."""

    step: int
    parameters: int
    block_parameters: int
    widths: dict[str, int]

    def __post_init__(self) -> None:
        for name in SIZES:
            integer(name, getattr(self, name))
        for name, width in mapping("widths", self.widths).items():
            integer(f"widths.{name}", width)
        object.__setattr__(self, "widths", dict(self.widths))


def checked(history: object) -> tuple[PlanEvent, ...]:
    """Return events that begin with the dense model at step 0, in ascending order; RecordError otherwise."""
    events = tuple(sequence("plan_history", history))
    for index, event in enumerate(events):
        if not isinstance(event, PlanEvent):
            fail(f"plan_history[{index}]", event, "a PlanEvent")
        if index == 0 and event.step != 0:
            fail("plan_history[0].step", event.step, "0, the dense model before training")
        if index and event.step < events[index - 1].step:
            fail(f"plan_history[{index}].step", event.step, "steps in ascending order")
    return events


def to_columns(history: Sequence[PlanEvent]) -> dict[str, Any]:
    """Return one list per field, `widths` one per pair, of the history's length; None where an event has no pair."""
    pairs = sorted({name for event in history for name in event.widths})
    columns: dict[str, Any] = {name: [getattr(event, name) for event in history] for name in SIZES}
    return {**columns, "widths": {name: [event.widths.get(name) for event in history] for name in pairs}}


def from_columns(value: object) -> tuple[PlanEvent, ...]:
    """Return the events of `to_columns`; RecordError where columns are missing, foreign or of different lengths."""
    columns = exact("plan_history", value, {*SIZES, "widths"})
    widths = mapping("plan_history.widths", columns["widths"])
    count = len(sequence("plan_history.step", columns["step"]))
    for name, column in [*((name, columns[name]) for name in SIZES), *widths.items()]:
        if len(sequence(f"plan_history.{name}", column)) != count:
            fail(f"plan_history.{name}", column, f"a list of {count} values, as many as there are steps")
    return tuple(
        nested(PlanEvent, f"plan_history[{index}]", {**_sizes(columns, index), "widths": _widths(widths, index)})
        for index in range(count)
    )


def from_events(value: object) -> tuple[PlanEvent, ...]:
    """Return the events of schema 1, a list with one object per event."""
    events = enumerate(sequence("plan_history", value))
    return tuple(nested(PlanEvent, f"plan_history[{index}]", event) for index, event in events)


def _sizes(columns: dict[str, Any], index: int) -> dict[str, Any]:
    return {name: columns[name][index] for name in SIZES}


def _widths(widths: Any, index: int) -> dict[str, Any]:
    return {name: column[index] for name, column in widths.items() if column[index] is not None}
