"""RESULTS.md: all Markdown tables of the committed tier in reading order, and the figures that are committed."""

from __future__ import annotations

from collections.abc import Sequence

from paper_tables.report import writers
from paper_tables.report.page import spoken
from paper_tables.report.parts import Content

TIER, PAGE = "cpu", "RESULTS.md"
"""Tier whose results are committed, and the page's name, next to the folder of what is rendered."""


def results_page(contents: Sequence[Content], files: Sequence[str], folder: str) -> str:
    """Return the page.

    Args:
        contents: what the items of the tier came to, in the order of the items.
        files: names of the files that were made.
        folder: where they are, from the page; the page links to them.
    """
    groups = _groups(contents)
    links = "\n".join(f"- [{title}](#{_anchor(title)})" for title in groups)
    body = "\n\n".join(f"## {title}\n\n{_section(title, own, files, folder)}" for title, own in groups.items())
    return (
        f"# Results of tier {TIER}\n\nGenerated from the records by `python -m paper_tables --tier {TIER}`; `--check` "
        "compares it. Tables name the runs behind every row in their own files. `--all` adds LaTeX, SVG, every figure "
        f"and one HTML report.\n\n{links}\n\n{body}\n"
    )


def _groups(contents: Sequence[Content]) -> dict[str, list[Content]]:
    """Return what to show by title: claims, experiments by the place of their first item, published numbers."""
    placed = sorted(contents, key=lambda content: (content.item.place, content.svg is not None))
    groups: dict[str, list[Content]] = {}
    for content in placed:
        own = content.item.experiments
        groups.setdefault(spoken(own[0]) if own else content.item.title, []).append(content)
    return {title: sorted(own, key=lambda content: content.svg is not None) for title, own in groups.items()}


def _section(title: str, contents: Sequence[Content], files: Sequence[str], folder: str) -> str:
    parts = []
    for content in contents:
        item = content.item
        heading = "" if item.title == title else f"### {item.title}"
        if content.table is not None:
            parts += [heading, item.caption, writers.markdown_rows(content.table)]
            parts += [_notes(content), f"Runs behind the rows: [{item.name}.md]({folder}/{item.name}.md)"]
        elif f"{item.name}.png" in files:
            parts += [heading, f"![{item.title}]({folder}/{item.name}.png)", item.caption]
    return "\n\n".join(part for part in parts if part)


def _notes(content: Content) -> str:
    if not content.notes:
        return ""
    notes = "\n\n".join(writers.markdown_text(note) for note in content.notes)
    return f"<details><summary>Protocol and notes</summary>\n\n{notes}\n\n</details>"


def _anchor(title: str) -> str:
    """Return the anchor that a heading has on the page."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")
