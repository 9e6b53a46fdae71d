"""Records as one table for pandas, and as a file of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import results
from results import Store
from results.__main__ import main
from results.table import FIELDS, export
from tests.results.factory import make_record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "records")
    made.append(make_record(1, {"perplexity": 9.0}, training={"steps": 200, "sizes": [0.5, 0.3]}))
    made.append(make_record(2, method="magnitude", status="failed", error="MemoryError", target=None))
    made.append(make_record(3, {"accuracy": 0.5}, experiment="mine", training={"steps": "many"}))
    return made


def test_a_run_is_a_row_with_everything_that_has_one_value(store: Store) -> None:
    table = results.frame(store)
    assert list(table.columns[: len(FIELDS)]) == list(FIELDS) and len(table) == 3
    assert list(table["metrics.perplexity"].dropna()) == [9.0] and list(table["metrics.accuracy"].dropna()) == [0.5]
    assert table["config.training.sizes"][0] == "[0.5, 0.3]" and table["config.target"][0] == 0.5
    assert table["status"].value_counts().to_dict() == {"finished": 2, "failed": 1}
    assert table["device.kind"].unique().tolist() == ["cpu"] and table["versions.torch"].unique().tolist() == ["2.11.0"]


def test_some_records_and_none(store: Store) -> None:
    assert len(results.frame(store.records(experiment="mine"))) == 1
    empty = results.frame([])
    assert list(empty.columns) == list(FIELDS) and empty.empty


def test_all_committed_records_make_a_table() -> None:
    table = results.frame()
    assert len(table) == len(list(Store().folder.glob("*/*.json")))
    assert table.groupby(["experiment", "method"])["metrics.perplexity"].mean().notna().any()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_exported_table_is_read_back(store: Store, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"runs{suffix}"
    assert main(["export", str(path), "--records", str(store.folder)]) == 0
    read = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    table = results.frame(store)
    assert list(read.columns) == list(table.columns)
    for name in ("id", "seconds", "metrics.perplexity", "config.target"):
        pd.testing.assert_series_equal(read[name], table[name], check_dtype=False)
    assert [str(value) for value in read["config.training.steps"]] == ["200", "200", "many"]


def test_the_command_chooses_and_refuses(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(tmp_path / "runs.csv"), "--records", str(store.folder), "--experiment", "mine"]
    assert main(words) == 0 and capsys.readouterr().out.startswith("1 runs, ")
    assert main(["export", str(tmp_path / "runs.xlsx"), "--records", str(store.folder)]) == 1
    assert "ends in .csv or .parquet" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"runs\.xlsx"):
        export(results.frame(store), tmp_path / "runs.xlsx")


def test_records_are_read_without_pandas() -> None:
    code = "import sys, results, results.table; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
