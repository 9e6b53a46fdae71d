"""Events become columns and come back; records that were written event by event stay readable, and as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from results import MethodInfo, PlanEvent, RecordError, RunRecord
from results.plan_history import from_columns, to_columns
from results.store import DEFAULT_FOLDER
from tests.results.factory import make_record

REBUILT = (
    PlanEvent(0, 100, 90, {"h.0.qk": 8, "h.1.qk": 8}),
    PlanEvent(4, 80, 70, {"h.1.qk": 8}),  # a block is gone
    PlanEvent(4, 60, 50, {}),  # its modules are no pairs any more
)


@pytest.mark.parametrize("history", [(), REBUILT[:1], REBUILT, REBUILT[:1] + REBUILT[2:]])
def test_columns_are_read_back(history: tuple[PlanEvent, ...]) -> None:
    assert from_columns(to_columns(history)) == history
    record = make_record(plan_history=history, method_info=MethodInfo("EcoSpa", "structures", "EcoSpa"))
    assert RunRecord.from_json(record.to_json()) == record


def test_a_width_stands_in_the_column_of_its_pair() -> None:
    assert to_columns(REBUILT) == {
        "step": [0, 4, 4],
        "parameters": [100, 80, 60],
        "block_parameters": [90, 70, 50],
        "widths": {"h.0.qk": [8, None, None], "h.1.qk": [8, 8, None]},
    }


def old_record() -> Path:
    """The committed record of schema 1 with the longest history among those of one experiment."""
    found = [
        p for p in sorted((DEFAULT_FOLDER / "bert_squad").glob("*.json")) if '"schema_version": 1,' in p.read_text()
    ]
    return max(found, key=lambda path: len(json.loads(path.read_text())["plan_history"]))


def test_a_committed_record_of_schema_1_is_read_and_written_as_it_is() -> None:
    text = old_record().read_text()
    record = RunRecord.from_json(text)
    assert record.schema_version == 1 and record.method_info is None
    assert record.to_json() == text
    events = json.loads(text)["plan_history"]
    assert len(events) > 2 and [event.widths for event in record.plan_history] == [event["widths"] for event in events]


def test_columns_are_shorter() -> None:
    raw = json.loads(old_record().read_text())
    history = RunRecord.from_json(old_record().read_text()).plan_history
    assert 2 * len(json.dumps(to_columns(history))) < len(json.dumps(raw["plan_history"]))


def test_schema_1_has_no_information_on_its_method() -> None:
    with pytest.raises(RecordError, match="method_info"):
        make_record(schema_version=1, method_info=MethodInfo("EcoSpa", "structures", "EcoSpa"))
    raw = json.loads(make_record().to_json())
    with pytest.raises(RecordError, match=r"plan_history"):
        RunRecord.from_json(json.dumps({**raw, "plan_history": []}))
