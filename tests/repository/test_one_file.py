"""One file adds a family, a baseline, an importance, a metric, an experiment, a table or a figure, and no other edit.

The files of `one_of_each/` are laid into a copy of the packages, and looked for in all places that list such things.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from results.store import Store
from tests.repository.source import PACKAGES, ROOT

ADDED = Path(__file__).parent / "one_of_each"


def copy(place: Path, added: bool) -> Path:
    """Copy the packages, with or without the new files."""
    skipped = shutil.ignore_patterns("__pycache__", "records", "rendered")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, place / package, ignore=skipped)
    shutil.copy(ADDED / "own_model.py", place)
    if added:
        shutil.copytree(ADDED, place, dirs_exist_ok=True, ignore=skipped)
    return place


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy, where nothing of the checkout is found."""
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages with one more file of each kind, in which the new experiment has run."""
    place = copy(tmp_path_factory.mktemp("one"), added=True)
    done = run(place, "-m", "benchmarks", "reproduce", "--only", "one_of_each", "--records", "made", "--work", "work")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "2 finished, 0 failed" in done.stdout
    return place


def test_a_family_is_cut(place: Path, tmp_path: Path) -> None:
    code = "import ecospa, own_model; print(ecospa.plan_shrink(own_model.own_model(), 0.5, target_scope='blocks'))"
    done = run(place, "-c", code)
    assert done.returncode == 0 and "transformer.h.1.mlp.ffn" in done.stdout, done.stderr
    without = run(copy(tmp_path, added=False), "-c", code)
    assert without.returncode == 1 and "UnsupportedModelError" in without.stderr


def test_baseline_and_importance_stand_in_the_table_of_methods(place: Path) -> None:
    done = run(place, "-m", "baselines")
    assert done.returncode == 0, done.stderr
    for name, file, title in (
        ("half_time", "half_time.py", "half-time cut"),
        ("importance_size", "importance_size.py", "number of weights"),
    ):
        assert any(all(text in row for text in (f"`{name}`", f"({file})", title)) for row in done.stdout.splitlines())


def test_the_experiment_stands_in_list_and_plan(place: Path) -> None:
    assert "is one file enough?" in run(place, "-m", "benchmarks", "list").stdout
    assert run(place, "-m", "benchmarks", "list", "--readme").returncode == 0
    page = (place / "benchmarks" / "README.md").read_text()
    assert "| [`one_of_each`](experiments/one_of_each.py) | is one file enough? | smoke |" in page
    shown = run(place, "-m", "benchmarks", "show", "one_of_each").stdout
    assert "half_time" in shown and "importance_size" in shown
    plan = run(place, "-m", "benchmarks", "run", "one_of_each", "--dry-run", "--records", "made", "--work", "work")
    assert "all 2 runs are done" in plan.stdout


def test_records_hold_the_metric_and_say_what_the_methods_are(place: Path) -> None:
    records = Store(place / "made").records("one_of_each")
    assert sorted(record.method for record in records) == ["half_time", "importance_size"]
    assert all(record.metrics["widest_pair"].unit == "indices" for record in records)


def test_table_figure_and_report_show_them(place: Path) -> None:
    rendered = place / "made" / "rendered" / "smoke"
    table = (rendered / "one_of_each.md").read_text()
    assert (
        "half-time cut" in table and "number of weights" in table and "widest pair (indices, lower is better)" in table
    )
    assert (rendered / "one_of_each.png").stat().st_size > 5_000
    report = (rendered / "report.html").read_text()
    assert "half-time cut" in report and "One of each" in report
    for name in ("loss_curves_one_of_each.png", "size_over_steps_one_of_each.png"):  # drawn for every experiment
        assert (rendered / name).is_file()
