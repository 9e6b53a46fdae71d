"""The report: one HTML file that needs nothing but itself, for a laptop or a phone, in the light or in the dark.

First the answer: five sentences, the headline claims as a short table, one figure; then what limits it, and what every
experiment came to, at a glance; then experiment by experiment its claims, tables, figures, protocol and runs; then what
was not run and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from paper_tables.claims.answer import sentences
from paper_tables.claims.verdicts import KINDS, NOT_RUN, Claim, Verdict
from paper_tables.item import Item
from paper_tables.report import parts
from paper_tables.report.caveats import caveats
from paper_tables.report.parts import Content
from paper_tables.report.writers import runs
from paper_tables.tables.claims import ITEM as CLAIMS
from paper_tables.tables.claims import judged
from results import RunRecord

STYLESHEET = Path(__file__).with_name("report.css")
_ABOUT = (
    "EcoSpa removes coupled indices of weight matrices while a transformer trains. This page compares the published "
    "numbers with measured ones. Every measured number comes from a record: point at a row to see its runs, open its "
    "last cell to follow them. Losing to a control is a result and is printed."
)
FIRST_FIGURE = "loss_against_cost"

_NAMES = {
    "bert": "BERT",
    "cifar10": "CIFAR-10",
    "deit": "DeiT",
    "glue": "GLUE",
    "gpt2": "GPT-2",
    "imagenet": "ImageNet",
    "llama": "LLaMA",
    "squad": "SQuAD",
    "sst2": "SST-2",
    "vit": "ViT",
}

Judged = Sequence[tuple[Claim, Verdict]]
_Section = tuple[str, str, str]  # anchor, title, body


def report(
    tier: str,
    records: Sequence[RunRecord],
    contents: Sequence[Content],
    missing: Sequence[Item],
    odd: Sequence[str] = (),
) -> str:
    """Return the page for all `records` of one tier, failed ones too.

    Args:
        tier: of the records.
        records: that are shown.
        contents: what the items came to.
        missing: items with nothing to show.
        odd: what is wrong with records that are damaged or left out somewhere.
    """
    finished = [record for record in records if record.status == "finished"]
    claims = judged(finished, tier)
    known = {record.id: record for record in records}
    headlines = [pair for pair in claims if pair[0].headline]
    theses = [pair for pair in claims if not pair[0].headline and pair[1].kind != NOT_RUN]
    experiments = [
        (_anchor(name), spoken(name), _experiment(name, tier, records, contents, theses))
        for name in _experiments(records, contents)
    ]
    # The first screen and the cards are the table of claims, with its runs; only the files hold it as one table.
    general = [c for c in contents if not c.item.experiments and c.item is not CLAIMS]
    sections = [
        ("limits", "What limits this", _limits(tier, finished, claims)),
        ("thesis", "What this tier shows", _overview(records, contents, theses)),
        *experiments,
        ("literature", "Published numbers", "".join(parts.content(c, known) for c in general)),
        ("environment", "Environment", parts.environment(finished)),
        ("not-run", "What was not run, and what it needs", parts.not_run(tier, claims, missing)),
        ("failed", "Runs that failed", parts.failed(records)),
        ("odd", "Odd records", parts.lines(odd)),
    ]
    shown = [section for section in sections if section[2]]
    return _page(tier, _first_screen(tier, claims, headlines, contents, known), shown)


def _first_screen(
    tier: str, claims: Judged, headlines: Judged, contents: Sequence[Content], known: Mapping[str, RunRecord]
) -> str:
    """Return the answer: five sentences, the headline claims, one figure."""
    told = "".join(f"<li>{parts.strong_topic(text)}</li>" for text in sentences(claims, tier))
    figure = "".join(parts.content(c, dict(known)) for c in contents if c.item.name == FIRST_FIGURE)
    return f'<ul class="answer">{told}</ul>{parts.headline_table(headlines, known)}{figure}'


def _limits(tier: str, finished: Sequence[RunRecord], claims: Judged) -> str:
    """Return what a reader must know of the numbers, and how to follow them."""
    return f"{parts.lines(caveats(tier, finished))}<p>{_ABOUT}</p><p>{_counts(finished, claims)}</p>"


def _experiments(records: Sequence[RunRecord], contents: Sequence[Content]) -> list[str]:
    """Return the experiments with anything to show, in the order of their first item; those without items last."""
    places: dict[str, int] = {}
    for content in contents:
        for name in content.item.experiments[:1]:
            places[name] = min(content.item.place, places.get(name, content.item.place))
    for record in records:
        places.setdefault(record.experiment, 1000)
    return sorted(places, key=lambda name: (places[name], name))


def _experiment(name: str, tier: str, records: Sequence[RunRecord], contents: Sequence[Content], theses: Judged) -> str:
    """Return all of one experiment: how to run it, its claims, tables, figures, protocol and runs."""
    known = {record.id: record for record in records}
    own = [content for content in contents if content.item.experiments[:1] == (name,)]
    tables = "".join(parts.content(c, known) for c in own if c.table is not None)
    figures = "".join(parts.content(c, known) for c in own if c.svg is not None and c.item.name != FIRST_FIGURE)
    notes = list(dict.fromkeys(note for content in own for note in content.notes))
    protocol = "".join(f"<li>{escape(note)}</li>" for note in notes)
    command = f"python -m benchmarks run {name} --tier {tier}"
    return "".join(
        (
            f'<p class="command"><code>{escape(command)}</code></p>',
            parts.cards([pair for pair in theses if pair[1].experiment == name], known),
            tables,
            f'<div class="figures">{figures}</div>' if figures else "",
            parts.fold("Protocol and notes", f'<ul class="notes">{protocol}</ul>') if protocol else "",
            parts.runs_of([record for record in records if record.experiment == name]),
        )
    )


def _overview(records: Sequence[RunRecord], contents: Sequence[Content], theses: Judged) -> str:
    """Return one row per experiment: verdicts of its claims, runs, seeds, time."""
    rows = []
    for name in _experiments(records, contents):
        own = [record for record in records if record.experiment == name]
        finished = [record for record in own if record.status == "finished"]
        kinds = Counter(verdict.kind for _, verdict in theses if verdict.experiment == name)
        marks = " ".join(
            f'<span class="mark {parts.css_class(kind)}" title="{kinds[kind]} {kind}">'
            f"{parts.MARKS[kind]}\N{NO-BREAK SPACE}{kinds[kind]}</span>"
            for kind in KINDS
            if kinds[kind]
        )
        failed = len(own) - len(finished)
        hours = sum(record.seconds for record in own) / 3600
        rows.append(
            f'<tr><th scope="row"><a href="#{_anchor(name)}">{escape(spoken(name))}</a></th><td>{marks or "-"}</td>'
            f'<td class="number">{len(finished)}</td><td class="number">{len({r.seed for r in finished})}</td>'
            f'<td class="number">{failed or "-"}</td><td class="number">{hours:.2f}</td></tr>'
        )
    if not rows:
        return ""
    legend = ", ".join(f"{parts.MARKS[kind]} {kind}" for kind in KINDS if kind != NOT_RUN)
    head = "<th>Experiment</th><th>Claims</th>" + "".join(
        f'<th class="number">{text}</th>' for text in ("Runs", "Seeds", "Failed", "Hours")
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'</div><p class="notes">Claims by verdict: {legend}. Hours are those of all runs, one after the other.</p>'
    )


def _anchor(experiment: str) -> str:
    return f"e-{experiment}"


def spoken(experiment: str) -> str:
    """Return an experiment's name for people: gpt2_pretraining is "GPT-2 pretraining"."""
    words = [_NAMES.get(word, word) for word in experiment.split("_")]
    return " ".join((words[0][0].upper() + words[0][1:], *words[1:]))


def _page(tier: str, answer: str, sections: Sequence[_Section]) -> str:
    css = STYLESHEET.read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{anchor}">{escape(title)}</a></li>' for anchor, title, _ in sections)
    body = "".join(
        f'\n<section id="{anchor}"><h2>{escape(title)}</h2>{text}</section>' for anchor, title, text in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>EcoSpa, tier {escape(tier)}</title>\n<style>\n{css}</style></head>\n<body>"
        f'<nav class="side" aria-label="Contents"><ul>{links}</ul></nav>'
        f'<div class="text"><header><h1>EcoSpa, reproduced: tier {escape(tier)}</h1></header>'
        f'\n<main><section id="answer" aria-label="The answer">{answer}</section>'
        f'<details class="toc" id="contents"><summary>Contents</summary><ul>{links}</ul></details>{body}</main>\n</div>'
        '<a class="up" href="#contents">Contents</a></body></html>\n'
    )


def _counts(finished: Sequence[RunRecord], claims: Judged) -> str:
    seeds, commits = {record.seed for record in finished}, {record.commit for record in finished}
    kinds = Counter(verdict.kind for _, verdict in claims)
    verdicts = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
    return f"Finished: {runs(len(finished))}, seeds: {len(seeds)}, commits: {len(commits)}. Verdicts: {verdicts}."
