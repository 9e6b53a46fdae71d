"""The table of ratios: what is compared with what, and that a missed promise or a lost case is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import ratio_table
from tests.bench.ratio_table import Ratio, Run


def made(**values: float) -> Run:
    return Run({"machine": {"name": "some CPU"}}, tuple(Ratio(name, v, 2.0, 1.0, 9) for name, v in values.items()))


def cells(table: str, name: str) -> list[str]:
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_ratio_stands_beside_the_committed_one() -> None:
    table = ratio_table.markdown(made(event=0.9), made(event=0.6))
    assert cells(table, "event") == ["event", "0.900", "2", "1", "kept", "0.600", "1.50"]


def test_a_missed_promise_is_told_although_the_case_passes() -> None:
    table = ratio_table.markdown(made(event=1.2, plan=0.02), None)
    assert cells(table, "event") == ["event", "1.200", "2", "1", "missed", "-", "-"]
    assert "Promises missed: 1 of 2." in table and "Last committed: none" in table


def test_no_promise_is_no_verdict() -> None:
    table = ratio_table.markdown(Run({}, (Ratio("save", 1.5, 3.0, None, 9),)), None)
    assert cells(table, "save")[3:5] == ["-", "-"] and "Promises missed: 0 of 0." in table


def test_a_case_that_did_not_run_keeps_its_row() -> None:
    table = ratio_table.markdown(made(event=0.9), made(plan=0.5, event=0.9))
    assert cells(table, "plan") == ["plan", "not run", "-", "-", "-", "0.500", "-"]


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert ratio_table.read(path) is None
    ratio_table.write(made(event=0.9, plan=0.5), path)
    assert ratio_table.read(path) == made(event=0.9, plan=0.5)


@pytest.mark.parametrize("text", ["{", '{"origin": {}}', '{"origin": {}, "ratios": [{"name": "x"}]}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"bench\.json: no run of the benchmarks"):
        ratio_table.read(path)


def test_the_committed_run_is_whole() -> None:
    """Every ratio has its machine and versions, and none stood above the limit that it was committed with."""
    run = ratio_table.read(ratio_table.COMMITTED)
    assert run is not None and {"commit", "machine", "load", "versions", "remark"} <= run.origin.keys()
    assert all(ratio.value <= ratio.limit for ratio in run.ratios)
    wanted = ("estimator", "event", "plan", "surgery", "attention", "FFN", "save", "load", "training step", "inference")
    assert [part for part in (*wanted, "torch-pruning") if not any(part in r.name for r in run.ratios)] == []
