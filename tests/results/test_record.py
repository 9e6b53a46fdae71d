"""A record survives the way to JSON and back, and refuses everything that this suite would not write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from results import Metric, PlanEvent, RecordError, RunRecord, config_hash, new_id
from tests.results.factory import make_record

Change = Callable[[dict[str, Any]], object]


def full() -> RunRecord:
    return make_record(
        7,
        metrics={"perplexity": 12.5},
        plan_history=(PlanEvent(0, 1000, 800, {"h.0.qk": 32}), PlanEvent(20, 700, 500, {"h.0.qk": 16})),
        loss_curve=((1, 4.5), (2, 4.0)),
        payload={"curves": [{"x": [0, 0.5], "name": "é"}], "nothing": None},
    )


def test_round_trip_keeps_everything() -> None:
    record = full()
    text = record.to_json()
    assert RunRecord.from_json(text) == record
    assert RunRecord.from_json(text).to_json() == text
    assert len(text.splitlines()) == 25  # one line per field between the braces


def test_a_failed_run_keeps_its_error() -> None:
    record = make_record(status="failed", error="Traceback\nMemoryError")
    assert RunRecord.from_json(record.to_json()).error == "Traceback\nMemoryError"


def test_tuples_in_free_fields_become_the_lists_that_will_be_read_back() -> None:
    record = make_record(payload={"shape": (2, 3)})
    assert record.payload == {"shape": [2, 3]}


def test_later_changes_of_the_argument_do_not_reach_the_record() -> None:
    payload = {"texts": ["a"]}
    record = make_record(payload=payload)
    payload["texts"].append("b")
    assert record.payload == {"texts": ["a"]}


def test_config_hash_ignores_the_order_of_keys_only() -> None:
    assert config_hash({"a": 1, "b": {"c": 2, "d": 3}}) == config_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert config_hash({"a": [1, 2]}) != config_hash({"a": [2, 1]})
    # sha256 of {"a":1}
    assert config_hash({"a": 1}) == "015abd7f5cc57a2d"


def test_ids_carry_the_start_and_differ() -> None:
    one, other = new_id("2026-11-23T23:59:59Z"), new_id("2026-11-23T23:59:59.25+00:00")
    assert one.startswith("20261123T235959Z-") and other.startswith("20261123T235959Z-")
    assert one != other


@pytest.mark.parametrize("start", ["yesterday", "2026-11-23T23:59:59", "2026-11-23T23:59:59+01:00", ""])
def test_a_start_that_is_not_utc_is_refused(start: str) -> None:
    with pytest.raises(RecordError, match="'start'"):
        new_id(start)


def drop(name: str) -> Change:
    return lambda raw: raw.pop(name)


def columns(**changes: Any) -> dict[str, Any]:
    return {"step": [0], "parameters": [1], "block_parameters": [1], "widths": {}, **changes}


def put(name: str, value: object) -> Change:
    return lambda raw: raw.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("comment", "x"), r"unknown: \['comment'\]"),
        (drop("seed"), r"missing: \['seed'\]"),
        (put("schema_version", 3), "'schema_version' is 3; expected 1 or 2"),
        (put("schema_version", 1), r"unknown: \['method_info'\]"),
        (put("method_info", {"title": "EcoSpa"}), r"method_info.*missing: \['group', 'removes'\]"),
        (put("method_info", {"title": "", "removes": "zeros", "group": "masks"}), "'title'"),
        (put("schema_version", True), "schema_version"),
        (put("id", "latest"), "'id' is 'latest'"),
        (put("method", "../ecospa"), "'method'"),
        (put("tier", "cpu"), "'config.tier' is 'smoke'"),
        (put("config_hash", "0" * 16), "'config_hash'.*edited"),
        (put("seed", "0"), "'seed' is '0'"),
        (put("seed", -1), "'seed' is -1"),
        (put("seed", True), "'seed' is True"),
        (put("commit", ""), "'commit'"),
        (put("dirty", 0), "'dirty'"),
        (put("versions", {"torch": 2}), "'versions.torch'"),
        (put("device", ["cpu"]), "'device'"),
        (put("start", "2026-01-01"), "'start'"),
        (put("seconds", -0.5), "'seconds'"),
        (put("metrics", []), "'metrics'"),
        (put("metrics", {"perplexity": {"value": 1.0}}), r"metrics.perplexity.*missing: \['higher_is_better', 'n'"),
        (put("metrics", {"p": {"value": None, "unit": "", "higher_is_better": None, "n": 1}}), "'metrics.p'.*'value'"),
        (put("metrics", {"p": {"value": 1, "unit": "", "higher_is_better": "no", "n": 1}}), "'higher_is_better'"),
        (put("metrics", {"p": {"value": 1, "unit": "", "higher_is_better": None, "n": 0}}), "'n' is 0"),
        (put("plan_history", columns(step=[5])), "step' is 5"),
        (put("plan_history", columns(step=[0, 3], parameters=[2, 1], block_parameters=[2, "1"])), r"plan_history\[1\]"),
        (put("plan_history", columns(parameters=[1, 2])), "'plan_history.parameters'.*1 values"),
        (put("plan_history", columns(widths={"h.0.qk": []})), r"'plan_history.h\.0\.qk'"),
        (put("plan_history", columns(widths={"h.0.qk": [-1]})), "'widths.h.0.qk' is -1"),
        (put("plan_history", {"step": [0]}), "missing: .*'widths'"),
        (put("plan_history", []), "'plan_history'"),
        (put("loss_curve", [[1, 2.0], [1, 2.0]]), r"loss_curve\[1\]\[0\]"),
        (put("loss_curve", [[1]]), r"loss_curve\[0\]"),
        (put("loss_curve", [[step, 1.0] for step in range(201)]), "201 points"),
        (put("status", "running"), "'status' is 'running'; expected one of finished, failed"),
        (put("status", "failed"), "'error'"),
        (put("error", "boom"), "'error' is 'boom'"),
        (put("payload", "text"), "'payload'"),
    ],
)
def test_what_this_suite_would_not_write_is_refused(change: Change, message: str) -> None:
    raw = json.loads(full().to_json())
    change(raw)
    with pytest.raises(RecordError, match=message) as caught:
        RunRecord.from_json(json.dumps(raw), source="some/file.json")
    assert str(caught.value).startswith("some/file.json: ")


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ['"seconds": 12.5', '"value": 12.5', "0.5}", "[2, 4.0]"])
def test_numbers_that_are_not_finite_are_refused(field: str, literal: str) -> None:
    text = full().to_json()
    if field == "0.5}":  # inside the free payload
        changed = text.replace("[0, 0.5]", f"[0, {literal}]")
    else:
        changed = text.replace(field, field.replace("12.5", literal).replace("4.0", literal))
    assert changed != text
    with pytest.raises(RecordError, match="finite"):
        RunRecord.from_json(changed)


def test_a_truncated_text_is_refused_at_every_length() -> None:
    text = full().to_json().rstrip()
    for length in range(0, len(text), 37):
        with pytest.raises(RecordError, match="not a whole JSON document"):
            RunRecord.from_json(text[:length])


def test_a_field_given_twice_is_refused() -> None:
    text = full().to_json().replace('"seed": 0', '"seed": 0,\n"seed": 1')
    with pytest.raises(RecordError, match="every field once"):
        RunRecord.from_json(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "12", True, None, 10**400])
def test_a_metric_is_a_finite_number(value: Any) -> None:
    with pytest.raises(RecordError, match="'value'"):
        Metric(value, "", None)


@pytest.mark.parametrize("value", [object(), {1, 2}, {1: "a"}, float("nan"), b"bytes"])
def test_free_fields_hold_plain_json_only(value: object) -> None:
    with pytest.raises(RecordError, match=r"payload\.inner"):
        make_record(payload={"inner": value})
    with pytest.raises(RecordError, match=r"config\.inner"):
        config_hash({"inner": value})
