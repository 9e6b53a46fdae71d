"""A table of text as Markdown, LaTeX, HTML or plain text; provenance goes where each format has room for it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from paper_tables.analysis.cells import device_name
from paper_tables.item import RECORDS, Table
from results import RunRecord
from results.printable import printable

Rows = list[list[str]]

_PROVENANCE = ("Seeds", "Tier", "Device")
_PAGE = 42  # lines of a table on one page of a paper
_HEAD = 12  # letters of a line of the name of a column
_LONG_WIDTH = "5.5cm"
_LATEX = {
    **{"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$"},
    **{"`": r"\textasciigrave{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"},
    **{
        "≥": r"$\geq$",
        "≤": r"$\leq$",
        "≈": r"$\approx$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "→": r"$\rightarrow$",
    },
    **{"\N{EN DASH}": "--", "“": "``", "”": "''", "\N{NO-BREAK SPACE}": "~"},
}
_MINUS = re.compile(r"(?<![\w.\])-])-(?=[\d.])")
"""A sign of a number: not the hyphen of a name or a range."""
_INSIDE = re.compile(r"((?<=[a-z])\.|\\_)(?=[A-Za-z])")
"""Places in code where a long name may be broken."""
_SPECIAL = re.compile(r"[\\`*<>~$|]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])")
"""Text that Markdown may take for markup in a line: emphasis, code, tags, links, formulas, entities; an underscore only
at the edge of a word."""
_LONG = 32  # letters, from which a cell is broken into lines
_ENTITY = re.compile(r"&(?=#?\w+;)")
_START = re.compile(r"^(\s*\d{0,9})([-+.)=#])(?=\s|$|[-=#])")
"""Beginnings that make a list, a rule or a heading of a line."""
_NUMBERS = set("0123456789+-.")


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table without the column of record ids."""
    return table.drop(columns=RECORDS, errors="ignore")


def ids(table: pd.DataFrame) -> list[list[str]]:
    """Return the record ids behind each row."""
    return [str(cell).split() for cell in table[RECORDS]] if RECORDS in table else [[] for _ in range(len(table))]


def markdown(item: Table, table: pd.DataFrame, notes: Sequence[str]) -> str:
    """Return title, caption, aligned table, notes, and the record ids of every row."""
    parts = [f"# {item.title}", item.caption, markdown_rows(table), *(markdown_text(note) for note in notes)]
    named = zip(_markdown_cells(shown(table))[1:], ids(table), strict=True)
    behind = [f"- {_line_start(', '.join(row[:2]))}: {', '.join(own)}" for row, own in named if own]
    if behind:
        parts += ["Records:", "\n".join(behind)]
    return "\n\n".join(parts) + "\n"


def markdown_rows(table: pd.DataFrame) -> str:
    """Return the aligned table alone."""
    padded = _padded(_markdown_cells(shown(table)))
    padded.insert(1, ["-" * len(cell) for cell in padded[0]])
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def latex(item: Table, table: pd.DataFrame, notes: Sequence[str]) -> str:
    """Return table environments for a paper (packages booktabs and graphicx); notes and record ids follow as comments.

    A table is made smaller only if it is wider than the text; one longer than a page goes on in another of its number.
    What is the same in all rows of the columns of provenance stands in the caption.
    """
    visible = shown(table)
    same = {
        name: str(visible[name].iloc[0]) for name in _PROVENANCE if name in visible and visible[name].nunique() == 1
    }
    visible = visible.drop(columns=list(same))
    caption = " ".join((item.caption, *(f"{name}: {value}." for name, value in same.items())))
    rows = _rows(visible)
    columns = "".join(_latex_column(visible, position) for position in range(visible.shape[1]))
    head = " & ".join(_latex_head(str(name)) for name in visible.columns) + r" \\"
    lines: list[str] = []
    for number, page in enumerate(_pages(rows)):
        lines += _latex_part(item, caption, columns, head, [_latex_row(row) for row in page], number > 0)
    lines += [f"% {line}" for note in notes for line in textwrap.wrap(one_line(note), 110)]
    lines += [f"% {_comment(row)}: {' '.join(own)}" for row, own in zip(rows, ids(table), strict=True) if own]
    return "\n".join(lines) + "\n"


def _comment(row: Sequence[str]) -> str:
    return ", ".join(one_line(cell) for cell in row[:2])


def _pages(rows: Rows) -> list[Rows]:
    """Return the rows page by page; a row is as high as its longest cell has lines."""
    pages: list[Rows] = [[]]
    filled = 0
    for row in rows:
        lines = max(-(-len(cell) // _LONG) for cell in row)
        if filled + lines > _PAGE and pages[-1]:
            pages.append([])
            filled = 0
        pages[-1].append(row)
        filled += lines
    return pages


def _latex_part(item: Table, text: str, columns: str, head: str, rows: Sequence[str], goes_on: bool) -> list[str]:
    """Return one page of a table; a page that goes on has the number of the first, and no label."""
    caption = [rf"\caption{{{_latex(text)}}}", rf"\label{{tab:{item.name}}}"]
    if goes_on:
        caption = [r"\addtocounter{table}{-1}", rf"\caption{{{_latex(item.title)} (continued)}}"]
    return [
        *(
            r"\begin{table}[p]" if goes_on else r"\begin{table}",
            r"\centering\small\setlength{\belowcaptionskip}{6pt}",
            *caption,
        ),
        *(r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%", rf"\begin{{tabular}}{{{columns}}}"),
        *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}}", r"\end{table}"),
    ]


def _latex_head(name: str) -> str:
    """Return the name of a column in short lines, so that its numbers decide how wide it is."""
    lines = textwrap.wrap(name, _HEAD, break_long_words=False) or [""]
    stacked = r"\\".join(map(_guarded, map(_latex, lines)))
    return stacked if len(lines) == 1 else rf"\shortstack[l]{{{stacked}}}"


def _latex_column(visible: pd.DataFrame, position: int) -> str:
    """Return the kind of a column: numbers to the right, text to the left, long text in lines."""
    if _is_number(visible, position):
        return "r"
    longest = max(len(str(cell)) for cell in visible.iloc[:, position])
    return f"p{{{_LONG_WIDTH}}}" if longest > _LONG else "l"


def html(table: pd.DataFrame, records: Mapping[str, RunRecord]) -> str:
    """Return a <table> whose rows tell their provenance on hover and, opened with a click, record by record."""
    visible = shown(table)
    numbers = [_is_number(visible, position) for position in range(visible.shape[1])]
    traced = RECORDS in table
    head = "".join(
        f'<th scope="col"{_class(number)}>{escape(str(name))}</th>'
        for name, number in zip(visible.columns, numbers, strict=True)
    )
    body = []
    for row, own in zip(_rows(visible), ids(table), strict=True):
        first = f'<th scope="row">{escape(row[0])}</th>'
        cells = "".join(
            f"<td{_class(number, len(cell) > _LONG)}>{escape(cell)}</td>"
            for cell, number in zip(row[1:], numbers[1:], strict=True)
        )
        end = f"<td>{provenance(own, records)}</td>" if traced else ""
        body.append(f'<tr title="{escape(summary(own, records))}">{first}{cells}{end}</tr>')
    head += '<th scope="col">Runs</th>' if traced else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def plain(table: pd.DataFrame, columns: Sequence[str], width: int = 120) -> str:
    """Return the named columns as aligned text of at most `width` characters a line; columns drop off from the end."""
    chosen = [name for name in columns if name in table]
    while True:
        lines = ["  ".join(row).rstrip() for row in _padded([chosen, *_rows(table[chosen])])]
        if len(chosen) <= 1 or max(map(len, lines)) <= width:
            return "\n".join(lines)
        chosen = chosen[:-1]


def origin(record: RunRecord) -> str:
    """Return commit, marked if files differed from it, and device of a run."""
    return f"commit {record.commit[:10]}{' + changes' if record.dirty else ''}, {device_name(record)}"


def summary(own: Sequence[str], records: Mapping[str, RunRecord]) -> str:
    """Return one line on the runs behind a row: how many, which commits and devices, ids."""
    if not own:
        return "no run"
    origins = sorted({origin(records[name]) for name in own})
    return f"{runs(len(own))}; {'; '.join(origins)}; records {', '.join(own)}"


def runs(count: int) -> str:
    """Return "1 run" or "3 runs"."""
    return f"{count} run{'s' * (count != 1)}"


def provenance(own: Sequence[str], records: Mapping[str, RunRecord]) -> str:
    """Return a fold that opens to the runs behind a number, each a link to its record in the page."""
    if not own:
        return "none"
    lines = "".join(
        f'<li><a href="#r-{name}">{name}</a><br>seed {records[name].seed}, {escape(origin(records[name]))}</li>'
        for name in own
    )
    return f"<details><summary>{runs(len(own))}</summary><ul>{lines}</ul></details>"


def _markdown_cells(visible: pd.DataFrame) -> Rows:
    rows = [list(map(str, visible.columns)), *_rows(visible)]
    return [[_markdown_cell(cell) for cell in row] for row in rows]


def _markdown_cell(text: str) -> str:
    """Return text that a cell of Markdown shows as it is."""
    return _SPECIAL.sub(lambda found: "\\" + found[0], one_line(text))


def _rows(visible: pd.DataFrame) -> Rows:
    return [[str(cell) for cell in row] for row in visible.to_numpy().tolist()]


def _padded(cells: Sequence[Sequence[str]]) -> Rows:
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(cells[0]))]
    return [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]


def _is_number(visible: pd.DataFrame, position: int) -> bool:
    cells = [str(cell) for cell in visible.iloc[:, position]]
    return all(
        len(cell) <= _LONG and cell[:1] in _NUMBERS and (len(cell) < 2 or cell.strip("+-")[:1].isdigit())
        for cell in cells
    )


def _class(number: bool, long: bool = False) -> str:
    return ' class="number"' if number else ' class="long"' if long else ""


def one_line(text: str) -> str:
    """Return text on one line, with what cannot be written as its number."""
    return printable(text.replace("\r\n", "\n")).replace("\n", " ").replace("\t", " ")


def _latex(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in one_line(text))
    return _MINUS.sub("$-$", _INSIDE.sub(r"\1\\allowbreak{}", escaped))


def _latex_row(cells: Sequence[str]) -> str:
    return _guarded(" & ".join(map(_latex, cells)) + r" \\")


def _guarded(line: str) -> str:
    """Return what follows the end of a line: `[` or `*` would be an option of that otherwise."""
    return "{}" + line if line.startswith(("[", "*")) else line


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is: what a model wrote may look like markup."""
    escaped = "".join("\\" + character if character in "\\`*_[]<>#|~$" else character for character in one_line(text))
    return _line_start(_ENTITY.sub(r"\\&", escaped))


def _line_start(text: str) -> str:
    """Return text that begins no list, rule or heading at the beginning of a line."""
    return _START.sub(r"\1\\\2", text)
