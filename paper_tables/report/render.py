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

from paper_tables.analysis.missing_runs import unfinished
from paper_tables.analysis.odd_records import LeftOut, legible, oddity, without_odd
from paper_tables.claims.verdicts import KINDS, Claim, Verdict
from paper_tables.drawing.style import drawing
from paper_tables.item import Item, Plot, Table, for_records, records_of
from paper_tables.registry import items
from paper_tables.report import page, writers
from paper_tables.report import parts as page_parts
from paper_tables.tables import claims, controls, coupled_vs_uncoupled
from results import RunRecord, Store

RENDERED = Path(__file__).parents[1] / "rendered"
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
    return write(rendering(tier, store), folder if folder is not None else RENDERED / tier)


def write(made: Rendering, folder: str | os.PathLike[str]) -> Path:
    """Write what was made, each file whole, and remove what an earlier rendering left; return the path of the report.

    Raises:
        OSError: the folder cannot be written to.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in made.files and is_ours(path.name):
            path.unlink()
    for name, content in made.files.items():
        partial = target / f".{name}.part"
        try:
            partial.write_bytes(content)
            partial.replace(target / name)
        finally:
            partial.unlink(missing_ok=True)
    return target / REPORT


@dataclass(frozen=True)
class Rendering:
    """Every file of a tier by its name, the report last, and a line for everything that is odd about its records."""

    files: dict[str, bytes]
    odd: tuple[str, ...] = ()


def rendered(tier: str, store: Store | None = None) -> dict[str, bytes]:
    """Return every file of `tier` by its name, the report last; see `render`."""
    return rendering(tier, store).files


def rendering(tier: str, store: Store | None = None) -> Rendering:
    """Return every file of `tier`, and what was odd about its records; see `render`."""
    records, damaged = (store or Store()).readable(tier=tier, status=None)
    found = [legible(record) for record in records]
    # what the page cannot show of a record at all goes first: the page is made from all of them
    _, unshown = without_odd(lambda some: page.report(tier, some, (), ()), found)
    gone = {record.id for record, _ in unshown}
    return _rendering(tier, [record for record in found if record.id not in gone], [*damaged, *_told(unshown, REPORT)])


def _rendering(tier: str, records: Sequence[RunRecord], odd: list[str]) -> Rendering:
    odd += [f"{_name(record)}: {reason}" for record in records if (reason := oddity(record)) is not None]
    files: dict[str, bytes] = {}
    contents: list[page_parts.Content] = []
    shown: set[str] = set()
    for item in for_records(items(), records):
        section, left_out = section_of(item, records)
        odd += _told(left_out, item.name)
        if section is not None:
            files |= {f"{item.name}{suffix}": content for suffix, content in section.files.items()}
            contents.append(section.content)
            shown.add(item.name)
    missing = [item for item in items() if item.experiments and item.name not in shown]
    return Rendering({**files, REPORT: page.report(tier, records, contents, missing, odd).encode()}, tuple(odd))


def _told(left_out: LeftOut, where: str) -> list[str]:
    return [f"{_name(record)} is left out of {where}: {reason}" for record, reason in left_out]


def _name(record: RunRecord) -> str:
    return f"record {record.experiment}/{record.tier}-{record.method}-{record.id}"


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
    records = [legible(record) for record in (store or Store()).readable(tier=tier)[0]]
    parts = []
    for item, columns in ((coupled_vs_uncoupled.ITEM, _SHORT), (controls.ITEM, _SHORT_CONTROLS)):
        table, _ = without_odd(item.build, records_of(item, records))
        if table is not None and len(table):
            parts.append(f"{item.title} (tier {tier})\n{writers.plain(table, columns, _WIDTH)}")
    if not records:
        parts.append(f"No finished records in tier {tier}; make them: python -m benchmarks reproduce --tier {tier}")
    verdicts, _ = without_odd(lambda some: claims.judged(some, tier), records)
    return "\n\n".join([*parts, *_verdict_lines(verdicts or ())])


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
class Section:
    """The files of one item by their suffixes, and what the page shows of it."""

    files: dict[str, bytes]
    content: page_parts.Content


def section_of(item: Item, records: Sequence[RunRecord]) -> tuple[Section | None, LeftOut]:
    """Return what an item comes to, None if it has nothing to show, and the records that it cannot take."""
    made, left_out = without_odd(lambda some: _section(item, records_of(item, some), some), records)
    if made is None or not left_out:
        return made, left_out
    names = "; ".join(f"{_name(record)} ({reason})" for record, reason in left_out)
    spoiled = {record.id for record, _ in left_out}
    kept = [record for record in records if record.id not in spoiled]
    return _section(item, records_of(item, kept), kept, (f"Left out as odd: {names}.",)), left_out


def _section(
    item: Item, own: Sequence[RunRecord], records: Sequence[RunRecord], more: tuple[str, ...] = ()
) -> Section | None:
    if isinstance(item, Table):
        table = item.build(own)
        if table.empty:
            return None
        notes = (*unfinished(item, records), *item.notes(own), *more)
        writers.html(table, {record.id: record for record in records})  # as the page will: a cell may not be text
        return Section(_table_files(item, table, notes), page_parts.Content(item, notes, table=table))
    with drawing(item.name):
        figure = item.build(own)
        if figure is None:
            return None
        files = _figure_files(figure)
        # In the page letters are text, which is smaller, and can be searched and read out; a file has their outlines.
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            svg = _svg(figure).decode()
    return Section(files, page_parts.Content(item, (*item.notes(own), *more), svg=svg))


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
