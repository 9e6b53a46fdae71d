"""From a store to files: every table and figure of one tier, and the report that holds them all.

The output is committed, so the same records give the same bytes: no dates, no random ids, a fixed font.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from paper_tables import page, writers
from paper_tables.item import Item, Plot, Table, records_of
from paper_tables.registry import items
from paper_tables.style import drawing
from paper_tables.tables import claims, controls, coupled_vs_uncoupled
from paper_tables.verdicts import KINDS, Claim, Verdict
from results import RunRecord, Store

RENDERED = Path(__file__).parent / "rendered"
_SUFFIXES = (".md", ".tex", ".png", ".svg")
_SHORT = (
    *("Method", "Blocks kept", "Perplexity", "Bits/byte", "Non-zero in blocks", "Final step / dense"),
    *("Seeds", "Run FLOPs", "Peak memory"),
)
_SHORT_CONTROLS = ("Blocks kept", "EcoSpa against", "Difference in perplexity", "Reading")
_WIDTH = 120


def render(tier: str, folder: str | os.PathLike[str] | None = None, store: Store | None = None) -> Path:
    """Write every table (.md, .tex), figure (.png, .svg) and report.html of `tier`; return the path of the report.

    Args:
        tier: whose records.
        folder: where to write; `rendered/<tier>` beside this file by default.
        store: records; those of the checkout by default.
    """
    target = Path(folder) if folder is not None else RENDERED / tier
    target.mkdir(parents=True, exist_ok=True)
    records = (store or Store()).records(tier=tier, status=None)
    sections = [_section(item, records) for item in items()]
    for item, section in zip(items(), sections, strict=True):
        _write(target, item, section.files if section is not None else {})
    report = target / "report.html"
    contents = [section.content for section in sections if section is not None]
    missing = [item for item, section in zip(items(), sections, strict=True) if section is None]
    report.write_text(page.report(tier, records, contents, missing), encoding="utf-8")
    return report


def terminal_table(tier: str, store: Store | None = None) -> str:
    """Return the main table, the paired differences and the verdicts of `tier` as text of at most 120 columns."""
    records = (store or Store()).records(tier=tier)
    parts = []
    for item, columns in ((coupled_vs_uncoupled.ITEM, _SHORT), (controls.ITEM, _SHORT_CONTROLS)):
        table = item.build(records_of(item, records))
        if len(table):
            parts.append(f"{item.title} (tier {tier})\n{writers.plain(table, columns, _WIDTH)}")
    if not parts:
        parts.append(f"No finished records in tier {tier}; make them: python -m benchmarks reproduce --tier {tier}")
    return "\n\n".join([*parts, *_verdict_lines(claims.judged(records, tier))])


def _verdict_lines(judged: Sequence[tuple[Claim, Verdict]]) -> list[str]:
    """Return one paragraph per kind of verdict; what the claims that were not run need stands in the report."""
    paragraphs = []
    for kind in KINDS:
        found = [(claim, verdict) for claim, verdict in judged if verdict.kind == kind]
        lines = [f"{claim.statement}{': ' + verdict.measured if verdict.measured else ''}" for claim, verdict in found]
        wrapped = [textwrap.fill(line, _WIDTH, initial_indent="- ", subsequent_indent="  ") for line in lines]
        if wrapped:
            paragraphs.append("\n".join([f"{kind.capitalize()} ({len(wrapped)})", *wrapped]))
    return paragraphs


@dataclass(frozen=True)
class _Section:
    files: dict[str, bytes]
    content: page.Content


def _section(item: Item, records: Sequence[RunRecord]) -> _Section | None:
    own = records_of(item, records)
    notes = item.notes(own)
    if isinstance(item, Table):
        table = item.build(own)
        if table.empty:
            return None
        return _Section(_table_files(item, table, notes), page.Content(item, notes, table=table))
    with drawing(item.name):
        figure = item.build(own)
        if figure is None:
            return None
        files = _figure_files(item, figure)
    return _Section(files, page.Content(item, notes, svg=files[".svg"].decode()))


def _table_files(item: Table, table: pd.DataFrame, notes: Sequence[str]) -> dict[str, bytes]:
    return {
        ".md": writers.markdown(item, table, notes).encode(),
        ".tex": writers.latex(item, table, notes).encode(),
    }


def _figure_files(item: Plot, figure: Figure) -> dict[str, bytes]:
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={name: None for name in ("Date", "Creator", "Format", "Type")})
    return {".png": png.getvalue(), ".svg": svg.getvalue()}


def _write(folder: Path, item: Item, files: dict[str, bytes]) -> None:
    """Write the files of an item, and remove what an earlier rendering left of it that has no records now."""
    for suffix in _SUFFIXES:
        path = folder / f"{item.name}{suffix}"
        if suffix in files:
            path.write_bytes(files[suffix])
        elif (suffix in (".md", ".tex")) == (item.kind == "table"):
            path.unlink(missing_ok=True)
