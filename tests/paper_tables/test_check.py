"""Comparison of what is committed with what the records render to; every stale file is named."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from paper_tables import __main__ as command
from paper_tables.report.check import findings
from paper_tables.report.readme import filled
from paper_tables.report.render import COMMITTED_FIGURES, RENDERED, render
from results import Store
from tests.results.factory import make_record

METRICS = {"perplexity": 20.0, "eval_loss": 3.0, "block_parameters_nonzero": 4e5}
BLOCK = "# Title\n<!-- records: smoke/controls -->\n<!-- end -->\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in small: records, rendered output, README."""
    root = tmp_path_factory.mktemp("checkout")
    store = Store(root / "records")
    for number, method in enumerate(("ecospa", "uncoupled")):
        store.append(make_record(number, METRICS, method=method))
    render("smoke", root / "rendered" / "smoke", store)
    (root / "README.md").write_text(filled(BLOCK, store), encoding="utf-8")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "checkout"))


def wrong(root: Path) -> list[str]:
    return [str(finding) for finding in findings(Store(root / "records"), root / "rendered", root / "README.md")]


def test_fresh_output_is_fresh(root: Path) -> None:
    assert wrong(root) == []


def test_every_stale_file_is_named(root: Path) -> None:
    folder = root / "rendered" / "smoke"
    (folder / "controls.md").write_text("edited by hand")
    (folder / "loss_against_cost.png").unlink()
    (folder / "an_old_table.md").write_text("old")
    (folder / "my_own_figure.png").write_text("not committed")
    (root / "README.md").write_text((root / "README.md").read_text().replace("EcoSpa", "EcoSPA"))
    assert wrong(root) == [
        "rendered/smoke/an_old_table.md: left over, no record makes it",
        "rendered/smoke/controls.md: differs",
        "rendered/smoke/loss_against_cost.png: missing",
        "README.md: its blocks of records differ",
    ]


def test_a_new_record_makes_its_tables_stale(root: Path) -> None:
    Store(root / "records").append(make_record(9900, {"perplexity": 1.5}, method="my_method"))
    names = [line.partition(":")[0] for line in wrong(root)]
    assert "rendered/smoke/coupled_vs_uncoupled.md" in names
    assert "rendered/smoke/published_numbers.md" not in names


def test_figures_are_drawn_and_not_compared(root: Path) -> None:
    (root / "rendered" / "smoke" / "loss_against_cost.png").write_bytes(b"another matplotlib")
    assert wrong(root) == []


def test_results_of_the_committed_tier_are_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "records")
    for number, method in enumerate(("ecospa", "uncoupled")):
        store.append(make_record(number, METRICS, method=method, tier="cpu"))
    monkeypatch.setattr(command, "RENDERED", tmp_path / "rendered")
    (tmp_path / "README.md").write_text("# Title\n")
    assert command.main(["--tier", "cpu", "--records", str(store.folder)]) == 0
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "- [Claims and verdicts](#claims-and-verdicts)" in page and page.count("\n## Claims and verdicts\n") == 1
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## Claims and verdicts", "## Coupled vs uncoupled", "## Published numbers"]
    for target in re.findall(r"\]\((rendered/[^)]*)\)", page):
        assert (tmp_path / target).is_file()
    assert "![Loss against cost](rendered/cpu/loss_against_cost.png)" in page
    assert wrong(tmp_path) == []
    (tmp_path / "RESULTS.md").write_text(page.replace("EcoSpa", "EcoSPA"))
    (tmp_path / "rendered" / "cpu" / "loss_against_cost.png").unlink()
    assert wrong(tmp_path) == ["RESULTS.md: differs", "rendered/cpu/loss_against_cost.png: missing"]


def test_git_holds_what_pages_show_and_little_else() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "paper_tables"], cwd=RENDERED.parents[1], capture_output=True, text=True, check=True
    ).stdout.split()
    rendered = [RENDERED.parents[1] / name for name in listed if name.startswith("paper_tables/rendered/")]
    assert {path.stem for path in rendered if path.suffix == ".png"} == set(COMMITTED_FIGURES)
    assert {path.suffix for path in rendered} == {".md", ".png"}
    assert len(COMMITTED_FIGURES) <= 12
    assert all(path.stat().st_size <= 150_000 for path in rendered if path.suffix == ".png")
    assert max((RENDERED.parents[1] / name).stat().st_size for name in listed) <= 500_000
    assert sum(path.stat().st_size for path in rendered) <= 3_000_000


def test_the_command_names_files_and_writes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "RENDERED", root / "rendered")
    monkeypatch.setattr(command, "README", root / "README.md")
    arguments = ["--check", "--records", str(root / "records")]
    assert command.main(arguments) == 0
    stale = root / "rendered" / "smoke" / "claims.md"
    stale.write_text("old")
    assert command.main(arguments) == 1
    out = capsys.readouterr().out
    assert "rendered/smoke/claims.md: differs" in out and "1 file stale" in out
    assert stale.read_text() == "old"
