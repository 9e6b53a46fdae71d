"""Tables of pages that are made from the code: rows as Markdown, put between two markers of a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_END = "<!-- end -->"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, whose cells may hold anything on one line."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


def filled(page: str, name: str, table: str) -> str:
    """Return a page with a table between `<!-- name -->` and `<!-- end -->`.

    Raises:
        ValueError: the page lacks the markers.
    """
    marker = f"<!-- {name} -->\n"
    before, opening, rest = page.partition(marker)
    _, closing, after = rest.partition(_END)
    if not opening or not closing:
        raise ValueError(f"the page lacks the markers {marker.strip()} and {_END}")
    return f"{before}{opening}{table}{closing}{after}"
