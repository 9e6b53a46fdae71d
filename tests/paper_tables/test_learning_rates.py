"""The sweep of learning rates: one row per arm, the best rate and whether it is at the edge."""

from __future__ import annotations

from paper_tables.item import RECORDS
from paper_tables.tables.learning_rates import build
from results import RunRecord
from tests.results.factory import make_record


def record(number: int, rate: float, loss: float, method: str = "dense", family: str = "gpt2") -> RunRecord:
    target = None if method == "dense" else 0.3
    settings = {"training": {"steps": 9, "learning_rate": rate}, "model": {"family": family}, "target": target}
    return make_record(number, {"eval_loss": loss}, experiment="learning_rates", method=method, **settings)


def test_every_arm_has_its_best_rate_and_an_edge_is_told() -> None:
    records = [
        record(1, 0.004, 3.9), record(2, 0.008, 3.7), record(3, 0.016, 3.8),
        record(4, 0.004, 4.0, "ecospa"), record(5, 0.008, 3.95, "ecospa"),
        record(6, 0.004, 3.1, "ecospa", "llama"),
    ]  # fmt: skip
    table = build(records)
    rows = {(row["Model"], row["Method"]): row for row in table.to_dict("records")}
    assert rows["GPT-2", "dense"]["Best"] == "0.008" and rows["GPT-2", "dense"]["0.016"] == "3.8000"
    assert rows["GPT-2", "EcoSpa"]["Best"] == "0.008 (edge)" and rows["GPT-2", "EcoSpa"]["0.016"] == "-"
    assert rows["LLaMA", "EcoSpa"]["Best"] == "0.004"  # of one rate nothing is the edge
    assert rows["GPT-2", "dense"][RECORDS].split() == [r.id for r in records[:3]]
    assert build([]).empty
