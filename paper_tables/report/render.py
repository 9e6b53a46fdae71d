"""From a store to files: every table and figure of one tier, and the report that holds them all.

What is committed is compared, so the same records give the same bytes: no dates, no random ids, a fixed font.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image  # matplotlib needs it, too

from paper_tables.analysis.missing_runs import unfinished
from paper_tables.analysis.odd_records import LeftOut, legible, oddity, without_odd
from paper_tables.claims.answer import sentences
from paper_tables.claims.verdicts import KINDS, NOT_RUN, Claim, Verdict
from paper_tables.drawing.style import drawing
from paper_tables.item import Item, Plot, Table, for_records, records_of
from paper_tables.methods import described_by
from paper_tables.registry import items
from paper_tables.report import page, writers
from paper_tables.report import parts as page_parts
from paper_tables.tables import claims, controls, coupled_vs_uncoupled
from results import RunRecord, Store

RENDERED = Path(__file__).parents[1] / "rendered"
REPORT = "report.html"
SUFFIXES = {"table": (".md", ".tex"), "figure": (".png", ".svg")}
COMMITTED_FIGURES = (
    *("loss_against_cost", "surviving_widths_coupled_vs_uncoupled", "importance_ranking", "break_points"),
    *("llama_finetuning_sizes", "compare_gpt2", "compare_llama", "compare_stories260k", "mismatch_error"),
    *("pretrained_curve", "speed_against_size", "memory_by_category"),
)
"""Figures that committed pages show: their PNGs are committed, and made unless everything is asked for."""
_SHORT = (
    *("Method", "Blocks kept", "Perplexity", "Bits/byte", "Non-zero in blocks", "Final step / dense"),
    *("Seeds", "Run FLOPs", "Peak memory"),
)
_SHORT_CONTROLS = ("Blocks kept", "EcoSpa against", "Nats per token", "Reading")
_WIDTH = 120
_COLORS = 256


@dataclass(frozen=True)
class Formats:
    """Formats made besides Markdown tables and the PNGs of COMMITTED_FIGURES.

    Attributes:
        latex: every table as .tex.
        svg: every figure as .svg.
        html: report.html.
        every_png: every figure as .png.
    """

    latex: bool = False
    svg: bool = False
    html: bool = False
    every_png: bool = False

    def png(self, name: str) -> bool:
        """Return whether a figure of this name becomes a PNG."""
        return self.every_png or name in COMMITTED_FIGURES

    def draws(self, name: str) -> bool:
        """Return whether a figure of this name is drawn at all."""
        return self.svg or self.html or self.png(name)


COMMITTED, EVERYTHING = Formats(), Formats(latex=True, svg=True, html=True, every_png=True)


def render(
    tier: str,
    folder: str | os.PathLike[str] | None = None,
    store: Store | None = None,
    formats: Formats = EVERYTHING,
) -> Path:
    """Write every table (.md, .tex), figure (.png, .svg) and report.html of `tier`; return the path of the report.

    Args:
        tier: whose records.
        folder: where to write; `rendered/<tier>` beside this package's folders by default.
        store: records; those of the checkout by default.
        formats: fewer than all of these.
    """
    return write(rendering(tier, store, formats), folder if folder is not None else RENDERED / tier) / REPORT


def write(made: Rendering, folder: str | os.PathLike[str]) -> Path:
    """Write what was made, each file whole, and remove what an earlier rendering left; return the folder.

    Raises:
        OSError: the folder cannot be written to.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in made.files and (path.name == REPORT or is_ours(path.name)):
            path.unlink()
    for name, content in made.files.items():
        partial = target / f".{name}.part"
        try:
            partial.write_bytes(content)
            partial.replace(target / name)
        finally:
            partial.unlink(missing_ok=True)
    return target


@dataclass(frozen=True)
class Rendering:
    """Every file of a tier by its name, a line for everything that is odd about its records, and what items show."""

    files: dict[str, bytes]
    odd: tuple[str, ...] = ()
    contents: tuple[page_parts.Content, ...] = ()


def rendered(tier: str, store: Store | None = None) -> dict[str, bytes]:
    """Return every file of `tier` in every format by its name, the report last; see `render`."""
    return rendering(tier, store).files


def rendering(tier: str, store: Store | None = None, formats: Formats = EVERYTHING) -> Rendering:
    """Return every file of `tier`, and what was odd about its records; see `render`."""
    records, damaged = (store or Store()).readable(tier=tier, status=None)
    found = [legible(record) for record in records]
    with described_by(found):
        # what the page cannot show of a record at all goes first: the page is made from all of them
        _, unshown = without_odd(lambda some: page.report(tier, some, (), ()), found)
        gone = {record.id for record, _ in unshown}
        kept = [record for record in found if record.id not in gone]
        return _rendering(tier, kept, [*damaged, *_told(unshown, REPORT)], formats)


def _rendering(tier: str, records: Sequence[RunRecord], odd: list[str], formats: Formats) -> Rendering:
    odd += [f"{_name(record)}: {reason}" for record in records if (reason := oddity(record)) is not None]
    files: dict[str, bytes] = {}
    contents: list[page_parts.Content] = []
    shown: set[str] = set()
    for item in for_records(items(), records):
        if isinstance(item, Plot) and not formats.draws(item.name):
            continue
        section, left_out = section_of(item, records, formats)
        odd += _told(left_out, item.name)
        if section is not None:
            files |= {f"{item.name}{suffix}": content for suffix, content in section.files.items()}
            contents.append(section.content)
            shown.add(item.name)
    if formats.html:
        missing = [item for item in items() if item.experiments and item.name not in shown]
        files[REPORT] = page.report(tier, records, contents, missing, odd).encode()
    return Rendering(files, tuple(odd), tuple(contents))


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
    with described_by(records):
        return _terminal_table(tier, records)


def _terminal_table(tier: str, records: Sequence[RunRecord]) -> str:
    parts = []
    for item, columns in ((coupled_vs_uncoupled.ITEM, _SHORT), (controls.ITEM, _SHORT_CONTROLS)):
        table, _ = without_odd(item.build, records_of(item, records))
        if table is not None and len(table):
            parts.append(f"{item.title} (tier {tier})\n{writers.plain(table, columns, _WIDTH)}")
    if not records:
        parts.append(f"No finished records in tier {tier}; make them: python -m benchmarks reproduce --tier {tier}")
    verdicts, _ = without_odd(lambda some: claims.judged(some, tier), records)
    return "\n\n".join([*parts, *_verdict_lines(verdicts or ()), answer_lines(verdicts or (), tier)])


def answer_lines(judged: Sequence[tuple[Claim, Verdict]], tier: str) -> str:
    """Return the answer as the last lines of a call: five sentences, each on two lines at most."""
    return "\n".join(
        textwrap.fill(text, _WIDTH, subsequent_indent="  ", max_lines=2, placeholder=" ...")
        for text in sentences(judged, tier)
    )


def _verdict_lines(judged: Sequence[tuple[Claim, Verdict]]) -> list[str]:
    """Return one paragraph per kind of verdict; of claims that were not run only how many they are."""
    paragraphs = []
    for kind in KINDS:
        found = [(claim, verdict) for claim, verdict in judged if verdict.kind == kind]
        if kind == NOT_RUN and found:
            paragraphs.append(f"Not run ({len(found)}): claims.md and the report say what each needs")
            continue
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


def section_of(
    item: Item, records: Sequence[RunRecord], formats: Formats = EVERYTHING
) -> tuple[Section | None, LeftOut]:
    """Return what an item comes to, None if it has nothing to show, and the records that it cannot take."""
    made, left_out = without_odd(lambda some: _section(item, records_of(item, some), some, formats), records)
    if made is None or not left_out:
        return made, left_out
    names = "; ".join(f"{_name(record)} ({reason})" for record, reason in left_out)
    spoiled = {record.id for record, _ in left_out}
    kept = [record for record in records if record.id not in spoiled]
    return _section(item, records_of(item, kept), kept, formats, (f"Left out as odd: {names}.",)), left_out


def _section(
    item: Item,
    own: Sequence[RunRecord],
    records: Sequence[RunRecord],
    formats: Formats,
    more: tuple[str, ...] = (),
) -> Section | None:
    if isinstance(item, Table):
        table = item.build(own)
        if table.empty:
            return None
        notes = (*unfinished(item, records), *item.notes(own), *more)
        writers.html(table, {record.id: record for record in records})  # as the page will: a cell may not be text
        files = {".md": writers.markdown(item, table, notes).encode()}
        if formats.latex:
            files[".tex"] = writers.latex(item, table, notes).encode()
        return Section(files, page_parts.Content(item, notes, table=table))
    with drawing(item.name):
        figure = item.build(own)
        if figure is None:
            return None
        files = {".png": _png(figure)} if formats.png(item.name) else {}
        if formats.svg:
            files[".svg"] = _svg(figure)
        # In the page letters are text, which is smaller, and can be searched and read out; a file has their outlines.
        with matplotlib.rc_context({"svg.fonttype": "none"}):
            svg = _svg(figure).decode() if formats.html else ""
    return Section(files, page_parts.Content(item, (*item.notes(own), *more), svg=svg))


def _png(figure: Figure) -> bytes:
    """Return a figure in the colours that it has: one byte a pixel instead of four."""
    drawn, png = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
    few.save(png, format="PNG", optimize=True, dpi=(150, 150))
    return png.getvalue()


def _svg(figure: Figure) -> bytes:
    svg = io.BytesIO()
    metadata = {
        "Creator": f"matplotlib {matplotlib.__version__}",
        **dict.fromkeys(("Date", "Format", "Type")),
    }
    figure.savefig(svg, format="svg", metadata=metadata)
    return svg.getvalue()
