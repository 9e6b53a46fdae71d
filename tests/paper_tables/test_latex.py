"""LaTeX of every table: it compiles where an engine is installed, and is well formed where none is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from paper_tables.item import Table, records_of
from paper_tables.registry import items
from paper_tables.report.writers import latex
from results import RunRecord, Store

TABLES = [item for item in items() if isinstance(item, Table)]
ENGINE = shutil.which("pdflatex")
DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""
NASTY = r'50% of a_b & {c} #1 $x$ ~ ^ \ < > | "q" ± ≥ ≈ → – “w”'  # noqa: RUF001


@pytest.fixture(scope="module")
def written(made_up: tuple[RunRecord, ...]) -> dict[str, str]:
    """LaTeX of every table, from made-up records of every experiment and from the committed ones."""
    own = Store().records(tier="cpu", status=None)
    return {
        f"{item.name}-{name}": text
        for name, records in (("made", made_up), ("own", own))
        for item, text in all_of(records)
    }


def all_of(records: list[RunRecord]) -> list[tuple[Table, str]]:
    built = [(item, item.build(own), item.notes(own)) for item in TABLES for own in (records_of(item, records),)]
    return [(item, latex(item, table, notes)) for item, table, notes in built if len(table)]


def example(rows: int, **cells: str) -> str:
    table = pd.DataFrame([{"Method": f"m{n}", "Score": "-0.5 [-0.7, -0.3]", **cells} for n in range(rows)])
    return latex(Table("example", "Example", NASTY, (), lambda records: table), table, ["a % note"])


def code(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("% ")]


def test_every_row_has_the_columns_of_its_table(written: dict[str, str]) -> None:
    assert len(written) > 15
    for name, text in written.items():
        width = 0
        for line in code(text):
            opened = re.match(r"\\begin\{tabular\}\{(.*)\}$", line)
            if opened:
                width = len(re.sub(r"p\{[^}]*\}", "p", opened.group(1)))
            elif line.endswith(r" \\"):
                assert len(re.findall(r"(?<!\\)&", line)) == width - 1, f"{name}: {line}"


def test_nothing_but_plain_characters_and_balanced_braces(written: dict[str, str]) -> None:
    for name, text in {**written, "example": example(2, **{"Long text": NASTY})}.items():
        body = "\n".join(code(text))
        assert body.isascii(), (name, [letter for letter in body if not letter.isascii()])
        bare = re.sub(r"\\[{}]", "", body)
        assert bare.count("{") == bare.count("}"), name
        for tag in ("table", "tabular"):
            assert body.count(rf"\begin{{{tag}}}") == body.count(rf"\end{{{tag}}}"), name
        for rule in ("toprule", "midrule", "bottomrule"):
            assert body.count(rf"\{rule}") == body.count(r"\begin{tabular}"), name


def test_special_characters_signs_and_brackets() -> None:
    text = example(1, Ends=NASTY, Range="two-3")
    assert r"50\% of a\_\allowbreak{}b \& \{c\} \#1 \$x\$" in text
    assert "$-$0.5 [$-$0.7, $-$0.3]" in text and "two-3" in text
    assert r"\begin{tabular}{lrp{5.5cm}l}" in text
    table = pd.DataFrame([{"Interval": "[1, 2]"}])
    assert "{}[1, 2] \\\\" in latex(Table("t", "T", "C", (), lambda records: table), table, [])


def test_provenance_that_all_rows_share_stands_in_the_caption() -> None:
    text = example(2, Seeds="3", Tier="cpu")
    assert "Seeds: 3. Tier: cpu.}" in text and r"\begin{tabular}{lr}" in text
    rows = pd.DataFrame([{"Method": "a", "Seeds": "3"}, {"Method": "b", "Seeds": "1"}])
    assert "Method & Seeds" in latex(Table("t", "T", "C", (), lambda records: rows), rows, [])


def test_a_long_table_goes_on_under_its_number() -> None:
    text = example(100)
    assert text.count(r"\begin{table}") == 3 and text.count(r"\label{tab:example}") == 1
    assert text.count(r"\addtocounter{table}{-1}") == 2 and text.count("Example (continued)") == 2
    assert [f"m{n} &" in text for n in (0, 41, 42, 99)] == [True] * 4


@pytest.mark.skipif(ENGINE is None, reason="needs pdflatex")
def test_every_table_compiles_and_fits_the_page(written: dict[str, str], tmp_path: Path) -> None:
    assert ENGINE is not None
    parts = "\n\\clearpage\n".join([*written.values(), example(50, **{"Long text": NASTY})])
    (tmp_path / "all.tex").write_text(DOCUMENT % parts, encoding="utf-8")
    command = [ENGINE, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", done.stdout)]
    assert max(wide, default=0.0) < 1.0, "a table is wider than the text"
    assert "Float too large" not in done.stdout
