"""The table of two sides: a row per model and capability, each side's own error, and the time of both."""

from __future__ import annotations

from paper_tables.tables import peers
from results import RunRecord
from tests.results import peer_records
from tests.results.factory import make_record


def records() -> list[RunRecord]:
    return [make_record(number, **fields) for number, fields in enumerate(peer_records.peers(1))]


def test_each_side_has_its_column_and_its_own_error() -> None:
    table = peers.build(records())
    rows = {(row["Model"], row["Capability"]): (row["EcoSpa"], row["Torch-Pruning"]) for _, row in table.iterrows()}
    assert rows == {
        ("GPT-2", "cut half of the attention"): ("works", "silently does nothing"),
        ("GPT-2", "save and load, safetensors"): ("works", "untested: nothing was cut"),
        ("BERT", "cut half of the attention"): ("works", "works"),
        ("BERT", "save and load, safetensors"): ("works", "fails: RuntimeError: size | mismatch"),
        ("BERT", "time to halve the heads"): ("50.00 ms, 0.2500 of the other's", "200.0 ms"),
    }


def test_a_side_that_has_not_run_is_empty_and_a_newer_run_counts() -> None:
    own = [record for record in records() if record.method == "ecospa" and record.config["model"]["name"] == "gpt2"]
    newer = make_record(99, **{**next(iter(peer_records.peers(1))), "payload": {"findings": [
        {"capability": "cut half of the attention", "outcome": "wrong", "detail": "40% of it is gone"}
    ]}})  # fmt: skip
    table = peers.build([*own, newer])
    assert list(table["EcoSpa"]) == ["wrong: 40% of it is gone"] and list(table["Torch-Pruning"]) == ["-"]


def test_the_release_of_the_library_is_told() -> None:
    assert peers.notes(records()) == ("Torch-Pruning 1.6.1.",) and peers.notes([]) == ()
