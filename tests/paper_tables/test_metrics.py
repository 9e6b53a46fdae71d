"""Metrics have one header and kind in all tables; what no table knows is shown as the record says."""

from __future__ import annotations

from paper_tables.analysis.cells import compare, measured
from paper_tables.analysis.formats import NOTHING
from paper_tables.metrics import METRICS, headers, is_known, kind, unknown
from paper_tables.tables import coupled_vs_uncoupled
from results import Metric, RunRecord, Store
from tests.results.factory import make_record


def with_metrics(number: int, method: str, **metrics: Metric) -> RunRecord:
    return make_record(number, {"perplexity": 9.0 + number, **metrics}, method=method)


def test_a_header_may_be_another_in_one_table() -> None:
    assert headers(("perplexity", ("step_time", "Step"))) == {"perplexity": "Perplexity", "step_time": "Step"}


def test_kinds_are_those_of_the_units_in_records() -> None:
    records = Store().records()
    for name in METRICS:
        own = [record for record in records if name in record.metrics]
        if own and own[0].metrics[name].unit in ("bytes", "parameters", "floating-point operations"):
            renamed = make_record(1, {f"no_{name}": own[0].metrics[name]})
            assert METRICS[name].kind == kind(f"no_{name}", [renamed])


def test_every_committed_metric_has_its_place() -> None:
    names = {name for record in Store().records(status=None) for name in record.metrics}
    assert len(names) > 100 and [name for name in sorted(names) if not is_known(name)] == []


def test_an_unknown_metric_is_a_column_as_the_record_says() -> None:
    mine = {"dead_heads": Metric(3.0, "heads", False), "effort": Metric(0.25, "", None), "wait": Metric(0.5, "s", None)}
    records = [with_metrics(1, "ecospa", **mine), with_metrics(2, "uncoupled")]
    assert unknown(records) == {"dead_heads": "dead heads (heads, lower is better)", "effort": "effort", "wait": "wait"}
    (cell,) = compare(records[:1]).cells
    shown = measured(cell, ("perplexity",))
    assert list(shown) == ["Perplexity", "dead heads (heads, lower is better)", "effort", "wait"]
    assert list(shown.values()) == ["10.00", "3.000", "0.2500", "500.0 ms"]
    table = coupled_vs_uncoupled.build(records).set_index("Method")
    assert list(table["effort"]) == ["0.2500", NOTHING]
