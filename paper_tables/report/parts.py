"""The parts of the report's page, each a piece of HTML made from claims, items or records."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from paper_tables.analysis.formats import share
from paper_tables.claims.answer import brief
from paper_tables.claims.verdicts import DECIDED, KINDS, NOT_RUN, Claim, Verdict
from paper_tables.drawing import style
from paper_tables.item import Item
from paper_tables.methods import label
from paper_tables.report import writers
from results import RunRecord

MARKS = dict(zip(KINDS, ("✓", "↓", "↕", "↘", "≈", "~", "✗", "?", "·", "○"), strict=True))
LONG = 30
"""Rows from which a table is folded."""
_LONG_NUMBER = re.compile(r"\d+\.\d{2,}")


@dataclass(frozen=True)
class Content:
    """Content of an item: a table or an SVG, with its notes."""

    item: Item
    notes: tuple[str, ...]
    table: pd.DataFrame | None = None
    svg: str | None = None


def css_class(kind: str) -> str:
    """Return the class of a kind of verdict in the style sheet."""
    return kind.replace(",", "").replace(" ", "-")


def fold(title: str, body: str) -> str:
    """Return a fold that is closed until it is clicked."""
    return f'<details class="fold"><summary>{escape(title)}</summary>{body}</details>'


def cards(claims: Sequence[tuple[Claim, Verdict]], known: Mapping[str, RunRecord]) -> str:
    """Return one card per claim: verdict, statement, published, measured, controls, source, runs."""
    made = []
    for claim, verdict in claims:
        measured = f"<dt>measured</dt><dd>{escape(verdict.measured)}</dd>" if verdict.measured else ""
        behind = verdict.all_records
        runs = writers.provenance(behind, known) if behind else ""
        title = f' title="{escape(writers.summary(behind, known))}"' if behind else ""
        controls = "".join(f"<dd>{escape(line)}</dd>" for line in verdict.control_lines)
        made.append(
            f'<li class="card {css_class(verdict.kind)}"{title}><p class="verdict">'
            f'<span aria-hidden="true">{MARKS[verdict.kind]}</span> {escape(verdict.text)}</p>'
            f"<h3>{escape(claim.statement)}</h3><dl><dt>published</dt><dd>{escape(claim.published)}</dd>{measured}"
            f"{f'<dt>controls</dt>{controls}' if controls else ''}"
            f"<dt>source</dt><dd>{escape(claim.source)}</dd></dl>{runs}</li>"
        )
    return f'<ul class="cards">{"".join(made)}</ul>' if made else ""


def strong_topic(sentence: str) -> str:
    """Return a sentence whose topic, before its first colon, stands out."""
    topic, colon, rest = sentence.partition(":")
    return f"<strong>{escape(topic)}{colon}</strong>{escape(rest)}"


def _control(name: str, verdict: Verdict) -> str:
    """Return a control in a few words: "dense at equal steps: -0.0018 nats, cannot decide here"."""
    effect, unit, _ = verdict.measured.partition(" nats")
    size = f"{effect.partition(' ')[0]} nats, " if unit else ""
    return f"{name}: {size}{verdict.reading if verdict.kind in DECIDED else verdict.kind}"


def headline_table(claims: Sequence[tuple[Claim, Verdict]], known: Mapping[str, RunRecord]) -> str:
    """Return the headline claims as a short table; on a phone every row becomes a block that names its columns."""
    if not claims:
        return ""
    rows = []
    for claim, verdict in claims:
        behind = verdict.all_records
        cells = {
            "Claim": escape(claim.statement),
            "Published": escape(claim.published),
            "Measured": escape(brief(verdict.measured) or "-"),
            "Controls": "<br>".join(escape(_control(name, own)) for name, own in verdict.controls) or "-",
            "Verdict": f'<span class="verdict">{MARKS[verdict.kind]} {escape(verdict.kind)}</span> '
            f"{escape(verdict.detail)}{writers.provenance(behind, known) if behind else ''}",
        }
        kind = css_class(verdict.kind)
        rows.append(
            f'<tr class="{kind}">'
            + "".join(f'<td data-name="{name}">{text}</td>' for name, text in cells.items())
            + "</tr>"
        )
    head = "".join(f"<th>{name}</th>" for name in ("Claim", "Published", "Measured", "Controls", "Verdict"))
    return f'<table class="headlines"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def content(shown: Content, known: dict[str, RunRecord]) -> str:
    """Return a table, folded if it is long, or a drawing, with its title and caption."""
    item = shown.item
    if shown.svg is not None:
        body = f'<div class="scroll drawing" tabindex="0">{inline(shown.svg, item.name, item.title)}</div>'
        kind = ' class="wide"' if _is_wide(shown.svg) else ""
    else:
        assert shown.table is not None
        rows, kind = len(shown.table), ""
        body = f'<div class="scroll rows" tabindex="0">{writers.html(shown.table, known)}</div>'
        if rows >= LONG or not any(writers.ids(shown.table)):
            body = fold(f"{rows} rows", body)
    return (
        f'<figure id="{item.kind}-{item.name}"{kind}><h3>{escape(item.title)}</h3>{body}'
        f"<figcaption>{escape(item.caption)}</figcaption></figure>"
    )


def _is_wide(svg: str) -> bool:
    """Return whether a drawing has panels in two columns, and wants the whole width of the page."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    return box is not None and float(box.group(1)) > 1.5 * 72 * style.WIDTH


def inline(svg: str, name: str, title: str) -> str:
    """Return an SVG to stand inside a page: its ids made unique, its ink, grid and paper those of the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    # Pictures are named after their content, so two equal ones would share an id; nothing refers to them.
    body = re.sub(r'(<image\b[^>]*?) id="[^"]*"', r"\1", body)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)  # groups are named for programs that edit drawings
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'href="#', f'href="#{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    body = re.sub(r'\bd="([^"]*)"', lambda path: f'd="{_short(path.group(1))}"', body)
    body = re.sub(r'\b(?:x|y)="[^"]*"', lambda place: _LONG_NUMBER.sub(_rounded, place.group()), body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    body = re.sub(r'\bstyle="[^"]*"', lambda style: style.group().replace("; ", ";"), body)  # not in what is written
    for shade, role in ((style.INK, "var(--ink)"), (style.GRID, "var(--grid)"), (style.PAPER, "none")):
        body = body.replace(shade, role)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def runs_of(records: Sequence[RunRecord]) -> str:
    """Return the runs of one experiment in a fold, cell by cell: the seeds of a cell share its configuration."""
    cells: defaultdict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.status == "finished":
            cells[record.config_hash].append(record)
    if not cells:
        return ""
    made = []
    for group in cells.values():
        lines = "".join(
            f'<li id="r-{record.id}">seed {record.seed}: {record.id}, {escape(writers.origin(record))}, '
            f"{record.seconds:.0f} s, started {escape(record.start)}<br><code>{escape(record.command)}</code></li>"
            for record in group
        )
        made.append(
            f'<details class="run"><summary>{_title(group[0])}: {writers.runs(len(group))}</summary>'
            f"<ul>{lines}</ul><pre>{escape(_config(group[0]))}</pre></details>"
        )
    count = sum(len(group) for group in cells.values())
    return fold(f"{writers.runs(count)} in {len(cells)} cell{'s' * (len(cells) != 1)}", "".join(made))


def environment(finished: Sequence[RunRecord]) -> str:
    """Return devices, versions and commits, each with how many runs it made."""
    machines: Counter[tuple[str, str]] = Counter()
    commits: Counter[str] = Counter()
    for record in finished:
        device = ", ".join(f"{key} {value}" for key, value in sorted(record.device.items()))
        machines[device, ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))] += 1
        commits[record.commit + (" + changes" if record.dirty else "")] += 1
    lines = [
        f"<li><b>{writers.runs(count)}</b>: {escape(device)}<br>{escape(versions)}</li>"
        for (device, versions), count in sorted(machines.items())
    ]
    lines += [
        f"<li><b>{writers.runs(count)}</b>: commit {escape(commit)}</li>" for commit, count in sorted(commits.items())
    ]
    return f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""


def not_run(tier: str, claims: Sequence[tuple[Claim, Verdict]], missing: Sequence[Item]) -> str:
    """Return the claims without a verdict and the items without records, each with what it needs."""
    lines = [
        f"<li>{escape(claim.statement)}: {escape(verdict.detail)}</li>"
        for claim, verdict in claims
        if verdict.kind == NOT_RUN
    ]
    by_command: defaultdict[str, list[str]] = defaultdict(list)
    for item in missing:
        if item.experiments:
            command = f"python -m benchmarks run {' '.join(item.experiments)} --tier {tier}"
            by_command[command].append(f"{item.kind} “{item.title}”")
    lines += [
        f"<li>{escape('; '.join(what))}: needs <code>{escape(command)}</code></li>"
        for command, what in by_command.items()
    ]
    everything = (
        f"<p>All of this tier: <code>python -m benchmarks reproduce --tier {escape(tier)}</code>; with "
        "<code>--dry-run</code> it says what is there, what is to do, how long it takes, and what cannot run here.</p>"
    )
    return everything + f'<ul class="notes">{"".join(lines)}</ul>' if lines else ""


def lines(texts: Sequence[str]) -> str:
    """Return texts as a list."""
    return f'<ul class="notes">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>' if texts else ""


def failed(records: Sequence[RunRecord]) -> str:
    """Return every failed run with the last line of its error."""
    lines = "".join(
        f'<li id="r-{record.id}">{_title(record)}, seed {record.seed}: <code>{escape(_last_line(record))}</code></li>'
        for record in records
        if record.status == "failed"
    )
    return f'<ul class="notes">{lines}</ul>' if lines else ""


def _short(path: str) -> str:
    """Return a path in fewer letters: rounded, and of straight lines only the way from one point to the next."""
    words = path.split()
    if set(re.findall("[A-Za-z]", path)) <= {"M", "L"} and words[::3] == [w for w in words if w in "ML"]:
        points = [
            (words[i], round(10 * float(words[i + 1])), round(10 * float(words[i + 2])))
            for i in range(0, len(words), 3)
        ]
        made, before = [], (0, 0)
        for letter, x, y in points:
            dx, dy = (x - before[0], y - before[1]) if letter == "L" else (x, y)
            made.append(f"{letter.lower() if letter == 'L' else letter}{dx / 10:g} {dy / 10:g}")
            before = (x, y)
        return "".join(made)
    return _LONG_NUMBER.sub(_rounded, path)


def _rounded(number: re.Match[str]) -> str:
    """Return a coordinate to a tenth of a point, which is finer than a screen."""
    return f"{float(number.group()):.1f}".removesuffix(".0")


def _last_line(record: RunRecord) -> str:
    return ["no message", *(record.error or "").strip().splitlines()][-1]


def _title(record: RunRecord) -> str:
    """Return experiment, model where it has a name, method and size of a cell."""
    target = record.config.get("target")
    size = f" {share(target)}" if target is not None else ""
    model = record.config.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    return escape(f"{record.experiment}: {f'{name}, ' if name else ''}{label(record.method)}{size}")


def _config(record: RunRecord) -> str:
    return json.dumps({"config_hash": record.config_hash, **record.config}, indent=1, sort_keys=True)
