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

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from paper_tables import page, page_parts, writers
from paper_tables.item import Item, Plot, Table, for_records, records_of
from paper_tables.registry import items
from paper_tables.style import drawing
from paper_tables.tables import claims, controls, coupled_vs_uncoupled
from paper_tables.unfinished import unfinished
from paper_tables.verdicts import KINDS, Claim, Verdict
from results import RunRecord, Store

RENDERED = Path(__file__).parent / "rendered"
REPORT = "report.html"
SUFFIXES = {"table": (".md", ".tex"), "figure": (".png", ".svg")}
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
    files = rendered(tier, store)
    for path in target.iterdir():
        if path.name not in files and is_ours(path.name):
            path.unlink()
    for name, content in files.items():
        (target / name).write_bytes(content)
    return target / REPORT


def rendered(tier: str, store: Store | None = None) -> dict[str, bytes]:
    """Return every file of `tier` by its name, the report last; see `render`."""
    records = (store or Store()).records(tier=tier, status=None)
    files: dict[str, bytes] = {}
    contents: list[page_parts.Content] = []
    shown: set[str] = set()
    for item in for_records(items(), records):
        section = _section(item, records)
        if section is not None:
            files |= {f"{item.name}{suffix}": content for suffix, content in section.files.items()}
            contents.append(section.content)
            shown.add(item.name)
    missing = [item for item in items() if item.experiments and item.name not in shown]
    return {**files, REPORT: page.report(tier, records, contents, missing).encode()}


def is_ours(name: str) -> bool:
    """Return whether a file of this name may be one that an earlier rendering left: in a folder may lie others."""
    stem, dot, suffix = name.rpartition(".")
    return any(
        f"{dot}{suffix}" in SUFFIXES[item.kind]
        and (stem == item.name or (isinstance(item, Plot) and item.each and stem.startswith(f"{item.name}_")))
        for item in items()
    )


def terminal_table(tier: str, store: Store | None = None) -> str:
    """Return the main table, the paired differences and the verdicts of `tier` as text of at most 120 columns."""
    records = (store or Store()).records(tier=tier)
    parts = []
    for item, columns in ((coupled_vs_uncoupled.ITEM, _SHORT), (controls.ITEM, _SHORT_CONTROLS)):
        table = item.build(records_of(item, records))
        if len(table):
            parts.append(f"{item.title} (tier {tier})\n{writers.plain(table, columns, _WIDTH)}")
    if not records:
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
    content: page_parts.Content


def _section(item: Item, records: Sequence[RunRecord]) -> _Section | None:
    own = records_of(item, records)
    if isinstance(item, Table):
        table = item.build(own)
        if table.empty:
            return None
        notes = (*unfinished(item, records), *item.notes(own))
        return _Section(_table_files(item, table, notes), page_parts.Content(item, notes, table=table))
    with drawing(item.name):
        figure = item.build(own)
        if figure is None:
            return None
        files = _figure_files(figure)
        # In the page letters are text, which is smaller, and can be searched and read out; a file has their outlines.
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            svg = _svg(figure).decode()
    return _Section(files, page_parts.Content(item, item.notes(own), svg=svg))


def _table_files(item: Table, table: pd.DataFrame, notes: Sequence[str]) -> dict[str, bytes]:
    return {
        ".md": writers.markdown(item, table, notes).encode(),
        ".tex": writers.latex(item, table, notes).encode(),
    }


def _figure_files(figure: Figure) -> dict[str, bytes]:
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return {".png": png.getvalue(), ".svg": _svg(figure)}


def _svg(figure: Figure) -> bytes:
    svg = io.BytesIO()
    metadata = {"Creator": drawn_by(), **{name: None for name in ("Date", "Format", "Type")}}
    figure.savefig(svg, format="svg", metadata=metadata)
    return svg.getvalue()


def drawn_by() -> str:
    """Return what an SVG says of its maker: another version of it draws a little differently."""
    return f"matplotlib {matplotlib.__version__}"
