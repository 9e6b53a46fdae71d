"""What is committed is compared with what the records render to, and every stale file is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paper_tables import __main__ as command
from paper_tables.report import check as checking
from paper_tables.report.check import Finding, findings
from paper_tables.report.readme import filled
from paper_tables.report.render import render
from results import Store
from tests.results.factory import make_record

BLOCK = "# Title\n<!-- records: smoke/controls -->\n<!-- end -->\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in small: records, rendered output, README."""
    root = tmp_path_factory.mktemp("checkout")
    store = Store(root / "records")
    for number, method in enumerate(("ecospa", "uncoupled")):
        store.append(make_record(number, {"perplexity": 20.0, "block_parameters_nonzero": 4e5}, method=method))
    render("smoke", root / "rendered" / "smoke", store)
    (root / "README.md").write_text(filled(BLOCK, store), encoding="utf-8")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "checkout"))


def wrong(root: Path) -> list[str]:
    found, remarks = findings(Store(root / "records"), root / "rendered", root / "README.md")
    assert remarks == []
    return [str(finding) for finding in found]


def test_fresh_output_is_fresh(root: Path) -> None:
    assert wrong(root) == []


def test_every_stale_file_is_named(root: Path) -> None:
    folder = root / "rendered" / "smoke"
    (folder / "controls.md").write_text("edited by hand")
    (folder / "pareto.png").unlink()
    (folder / "an_old_figure.svg").write_text("<svg/>")
    (root / "README.md").write_text((root / "README.md").read_text().replace("EcoSpa", "EcoSPA"))
    assert wrong(root) == [
        "rendered/smoke/an_old_figure.svg: left over, no record makes it",
        "rendered/smoke/controls.md: differs",
        "rendered/smoke/pareto.png: missing",
        "README.md: its blocks of records differ",
    ]


def test_a_new_record_makes_its_tables_stale(root: Path) -> None:
    Store(root / "records").append(make_record(9900, {"perplexity": 1.5}, method="my_method"))
    names = [line.partition(":")[0] for line in wrong(root)]
    assert "rendered/smoke/coupled_vs_uncoupled.md" in names and "rendered/smoke/report.html" in names
    assert "rendered/smoke/published_numbers.md" not in names


def test_another_matplotlib_is_told_and_only_figures_are_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "rendered" / "smoke"
    (folder / "controls.md").write_text("edited by hand")
    (folder / "pareto.png").unlink()
    monkeypatch.setattr(checking, "drawn_by", lambda: "matplotlib 0.1")
    found, remarks = findings(Store(root / "records"), root / "rendered", root / "README.md")
    assert found == [
        Finding("rendered/smoke/controls.md", "differs"),
        Finding("rendered/smoke/pareto.png", "missing"),
    ]
    assert len(remarks) == 1 and remarks[0].endswith("here is matplotlib 0.1")


def test_the_command_names_files_and_writes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "RENDERED", root / "rendered")
    monkeypatch.setattr(command, "README", root / "README.md")
    arguments = ["--check", "--records", str(root / "records")]
    assert command.main(arguments) == 0
    stale = root / "rendered" / "smoke" / "claims.tex"
    stale.write_text("old")
    assert command.main(arguments) == 1
    out = capsys.readouterr().out
    assert "rendered/smoke/claims.tex: differs" in out and "1 file stale" in out
    assert stale.read_text() == "old"
