"""`python -m paper_tables --tier smoke`: render what the records of one tier hold, and print the short form.

Makes what is committed, Markdown tables and a few figures; LaTeX, SVG, one HTML page and the other figures by flags,
all of it with `--all`. `python -m paper_tables --check` says whether what is committed is what the records render to.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from paper_tables.report.check import findings
from paper_tables.report.readme import README, filled, pages
from paper_tables.report.render import EVERYTHING, RENDERED, REPORT, Formats, rendering, terminal_table, write
from paper_tables.report.results_page import PAGE, TIER, results_page
from results import RecordError, Store
from results.store import DEFAULT_FOLDER

TIERS = ("smoke", "cpu", "gpu", "paper")


def main(arguments: Sequence[str] | None = None) -> int:
    """Render or check; returns 0, or 1 with a message when a record is odd or what is committed is stale."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal or file that knows fewer letters than a record may hold
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="python -m paper_tables", description="Records -> tables, plots, report.")
    parser.add_argument("--tier", choices=TIERS, default="smoke", help="whose records (default: smoke)")
    parser.add_argument("--records", type=Path, default=DEFAULT_FOLDER, help="folder of the records")
    parser.add_argument("--out", type=Path, help=f"folder to write to (default: {RENDERED.name}/<tier> beside this)")
    parser.add_argument("--latex", action="store_true", help="also write every table as .tex")
    parser.add_argument("--svg", action="store_true", help="also write every figure as .svg")
    parser.add_argument("--html", action="store_true", help=f"also write {REPORT}, which holds everything")
    parser.add_argument(
        "--all",
        action="store_true",
        help="write all of these, and every figure as .png; what is not asked for and was made before is removed",
    )
    parser.add_argument("--readme", action="store_true", help="also fill the tables of the pages")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"write nothing; name every file below {RENDERED.name}/ and every page if it is not what the records "
        "render to, and exit with 1 (all tiers)",
    )
    options = parser.parse_args(arguments)
    store = Store(options.records)
    try:
        return _check(store) if options.check else _render(options, store)
    except (RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; every file that was written is whole", file=sys.stderr)
        return 130


def _render(options: argparse.Namespace, store: Store) -> int:
    made = rendering(options.tier, store, _formats(options))
    folder = write(made, options.out or RENDERED / options.tier)
    if options.out is None and options.tier == TIER:
        everything = results_page(made.contents, list(made.files), f"{RENDERED.name}/{TIER}")
        RENDERED.with_name(PAGE).write_text(everything, encoding="utf-8")
    if options.readme:
        for page in pages(README.parent):
            page.write_text(filled(page.read_text(encoding="utf-8"), store), encoding="utf-8")
    print(f"report: {folder / REPORT}\n" if REPORT in made.files else f"tables: {folder}\n")
    for line in made.odd:
        print(f"odd: {line}", file=sys.stderr)
    print(terminal_table(options.tier, store))  # its last lines are the answer
    return int(bool(made.odd))


def _formats(options: argparse.Namespace) -> Formats:
    if options.all:
        return EVERYTHING
    return Formats(latex=options.latex, svg=options.svg, html=options.html)


def _check(store: Store) -> int:
    wrong = findings(store, RENDERED, README)
    for line in wrong:
        print(line)
    if wrong:
        count = f"{len(wrong)} file{'s' * (len(wrong) != 1)}"
        print(f"{count} stale; render again: python -m paper_tables --tier TIER --readme")
        return 1
    print("what is committed is what the records render to")
    return 0


if __name__ == "__main__":
    sys.exit(main())
