"""The recipe of the README, word by word: a file outside the tree runs through smoke experiments and is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.execution.provenance import ROOT
from results.store import Store

PLACE = "my_package.my_module:MyMethod"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's file in it, outside the tree."""
    code = re.search(r"```python\n(# my_package/my_module\.py\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code is not None
    place = tmp_path_factory.mktemp("newcomer")
    (place / "my_package").mkdir()
    (place / "my_package" / "my_module.py").write_text(code[1])
    return place


def suite(folder: Path, *words: str) -> str:
    """Run a command of the suite as a new user would, in processes of its own."""
    places = ["--records", str(folder / "records"), "--work", str(folder / "work"), "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words, *places], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_it_stands_in_table_and_plot_beside_the_others(folder: Path) -> None:
    out = suite(folder, "compare", "--tier", "smoke", "--methods", f"dense,ecospa,{PLACE}", "--sizes", "0.6")
    assert "3 finished, 0 failed" in out
    (record,) = Store(folder / "records").records("compare", method="mine")
    assert record.metrics["block_share"].value == pytest.approx(0.6, abs=0.05)
    assert record.config["method_config"]["location"] == PLACE
    assert record.command.startswith(f"python -m benchmarks compare --model gpt2 --methods {PLACE} --sizes 0.6")
    rendered = folder / "records" / "rendered" / "smoke"
    table = (rendered / "compare.md").read_text()
    assert re.search(r"\| gpt2 +\| mine +\| 60% ", table) and re.search(r"\| gpt2 +\| EcoSpa +\| 60% ", table)
    assert (rendered / "compare_gpt2.png").stat().st_size > 10_000
    assert ">mine<" in (rendered / "report.html").read_text()
