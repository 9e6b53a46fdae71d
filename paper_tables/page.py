"""The report: one HTML file that needs nothing but itself, for a laptop or a phone, in the light or in the dark.

First what a reader came for, the headline claims with their verdicts; then tables and figures; then how it was measured
and what was not.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from paper_tables import style, writers
from paper_tables.cells import label
from paper_tables.formats import share
from paper_tables.item import Item
from paper_tables.tables.claims import ITEM as CLAIMS
from paper_tables.tables.claims import judged
from paper_tables.verdicts import KINDS, NOT_RUN, Claim, Verdict
from results import RunRecord

STYLESHEET = Path(__file__).with_name("report.css")
_MARKS = dict(zip(KINDS, ("✓", "↘", "≈", "✗", "○"), strict=True))
_ABOUT = (
    "EcoSpa removes coupled indices of weight matrices while a transformer trains. This page puts the published "
    "numbers beside measured ones. Every measured number comes from a record: point at a row to see its runs, open "
    "its last cell to follow them. Losing to a control is a result and is printed."
)


@dataclass(frozen=True)
class Content:
    """What an item has to show: a table or an SVG, with its notes."""

    item: Item
    notes: tuple[str, ...]
    table: pd.DataFrame | None = None
    svg: str | None = None


def report(tier: str, records: Sequence[RunRecord], contents: Sequence[Content], missing: Sequence[Item]) -> str:
    """Return the page for all `records` of one tier, failed ones too; `missing` are items with nothing to show."""
    finished = [record for record in records if record.status == "finished"]
    claims = judged(finished, tier)
    known = {record.id: record for record in records}
    # The cards above are the table of claims, with its runs; only the files hold it as a table.
    tables = [_content(c, known) for c in contents if c.table is not None and c.item is not CLAIMS]
    figures = [_content(c, known) for c in contents if c.svg is not None]
    parts = [
        _section("claims-first", "Headline claims", _cards(claims, known, headline=True)),
        _section("thesis", "What this tier shows", _cards(claims, known, headline=False)),
        _section("tables", "Tables", "".join(tables)),
        _section("figures", "Figures", "".join(figures)) if figures else "",
        _section("environment", "Environment", _environment(finished)),
        _section("not-run", "What was not run, and what it needs", _not_run(tier, claims, missing)),
        _section("failed", "Runs that failed", _failed(records)),
        _section("runs", "All runs", _runs(finished)),
    ]
    return _page(tier, _counts(finished, claims), "".join(parts))


def inline(svg: str, name: str, title: str) -> str:
    """Return an SVG to stand inside a page: its ids made unique, its ink, grid and paper those of the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    # Pictures are named after their content, so two equal ones would share an id; nothing refers to them.
    body = re.sub(r'(<image\b[^>]*?) id="[^"]*"', r"\1", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    for shade, role in ((style.INK, "var(--ink)"), (style.GRID, "var(--grid)"), (style.PAPER, "none")):
        body = body.replace(shade, role)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def _page(tier: str, counts: str, body: str) -> str:
    css = STYLESHEET.read_text(encoding="utf-8")
    links = (("claims-first", "Claims"), ("tables", "Tables"), ("figures", "Figures"), ("not-run", "Not run"))
    menu = "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in links if f'id="{anchor}"' in body)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>EcoSpa, tier {escape(tier)}</title>\n<style>\n{css}</style></head>\n<body>"
        f"<header><h1>EcoSpa, reproduced: tier {escape(tier)}</h1><p>{_ABOUT}</p><p>{counts}</p>"
        f"<nav>{menu}</nav></header>"
        f"\n<main>{body}</main>\n</body></html>\n"
    )


def _section(anchor: str, title: str, body: str) -> str:
    return f'\n<section id="{anchor}"><h2>{title}</h2>{body}</section>' if body else ""


def _counts(finished: Sequence[RunRecord], claims: Sequence[tuple[Claim, Verdict]]) -> str:
    seeds, commits = {record.seed for record in finished}, {record.commit for record in finished}
    runs = f"Finished runs: {len(finished)}, seeds: {len(seeds)}, commits: {len(commits)}. Verdicts: "
    kinds = Counter(verdict.kind for _, verdict in claims)
    return runs + ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind]) + "."


def _cards(claims: Sequence[tuple[Claim, Verdict]], known: Mapping[str, RunRecord], *, headline: bool) -> str:
    cards = []
    for claim, verdict in claims:
        if claim.headline is not headline or (verdict.kind == NOT_RUN and not headline):
            continue
        kind = verdict.kind.replace(" ", "-")
        measured = f"<dt>measured</dt><dd>{escape(verdict.measured)}</dd>" if verdict.measured else ""
        runs = writers.provenance(verdict.records, known) if verdict.records else ""
        cards.append(
            f'<li class="card {kind}"><p class="verdict"><span aria-hidden="true">{_MARKS[verdict.kind]}</span> '
            f"{escape(verdict.text)}</p><h3>{escape(claim.statement)}</h3><dl><dt>published</dt>"
            f"<dd>{escape(claim.published)}</dd>{measured}<dt>source</dt><dd>{escape(claim.source)}</dd></dl>{runs}</li>"
        )
    return f'<ul class="cards">{"".join(cards)}</ul>' if cards else ""


def _content(content: Content, known: dict[str, RunRecord]) -> str:
    item = content.item
    if content.svg is not None:
        body = f'<div class="scroll drawing">{inline(content.svg, item.name, item.title)}</div>'
    else:
        assert content.table is not None
        body = f'<div class="scroll" tabindex="0">{writers.html(content.table, known)}</div>'
        if not any(writers.ids(content.table)):
            body = f"<details><summary>{len(content.table)} rows</summary>{body}</details>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in content.notes)
    notes = f'<ul class="notes">{notes}</ul>' if notes else ""
    return (
        f'<figure id="{item.kind}-{item.name}"><h3>{escape(item.title)}</h3>{body}'
        f"<figcaption>{escape(item.caption)}</figcaption>{notes}</figure>"
    )


def _environment(finished: Sequence[RunRecord]) -> str:
    groups: Counter[tuple[str, str, str]] = Counter()
    for record in finished:
        device = ", ".join(f"{key} {value}" for key, value in sorted(record.device.items()))
        versions = ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))
        groups[device, versions, record.commit + (" + changes" if record.dirty else "")] += 1
    lines = (
        f"<li><b>{writers.runs(count)}</b>: {escape(device)}<br>{escape(versions)}<br>commit {escape(commit)}</li>"
        for (device, versions, commit), count in sorted(groups.items())
    )
    return f'<ul class="notes">{"".join(lines)}</ul>' if groups else ""


def _not_run(tier: str, claims: Sequence[tuple[Claim, Verdict]], missing: Sequence[Item]) -> str:
    lines = [
        f"<li>{escape(claim.statement)}: {escape(verdict.detail)}</li>"
        for claim, verdict in claims
        if verdict.kind == NOT_RUN
    ]
    lines += [
        f"<li>{item.kind} “{escape(item.title)}”: needs <code>python -m benchmarks run {' '.join(item.experiments)} "
        f"--tier {escape(tier)}</code></li>"
        for item in missing
    ]
    everything = f"<p>All of this tier: <code>python -m benchmarks reproduce --tier {escape(tier)}</code></p>"
    return everything + f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""


def _failed(records: Sequence[RunRecord]) -> str:
    lines = (
        f'<li id="r-{record.id}">{_title(record)}: <code>{escape(_last_line(record))}</code></li>'
        for record in records
        if record.status == "failed"
    )
    text = "".join(lines)
    return f'<ul class="notes">{text}</ul>' if text else ""


def _last_line(record: RunRecord) -> str:
    return (record.error or "").strip().splitlines()[-1]


def _runs(finished: Sequence[RunRecord]) -> str:
    lines = (
        f'<details class="run" id="r-{record.id}"><summary>{_title(record)}</summary><p>{record.id}, '
        f"{escape(writers.origin(record))}, {record.seconds:.0f} s, started {escape(record.start)}</p>"
        f"<p><code>{escape(record.command)}</code></p><pre>{escape(_config(record))}</pre></details>"
        for record in finished
    )
    return "".join(lines)


def _title(record: RunRecord) -> str:
    target = record.config.get("target")
    size = f" {share(target)}" if target is not None else ""
    return escape(f"{record.experiment}: {label(record.method)}{size}, seed {record.seed}")


def _config(record: RunRecord) -> str:
    return json.dumps({"config_hash": record.config_hash, **record.config}, indent=1, sort_keys=True)
