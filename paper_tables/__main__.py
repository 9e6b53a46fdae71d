"""`python -m paper_tables --tier smoke`: render what the records of one tier hold, and print the short form."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from paper_tables.readme import README, filled
from paper_tables.rendering import RENDERED, render, terminal_table
from results import RecordError, Store
from results.store import DEFAULT_FOLDER

TIERS = ("smoke", "cpu", "gpu", "paper")


def main(arguments: Sequence[str] | None = None) -> int:
    """Render one tier and print its short table; returns 0, or 1 with a message when a record is damaged."""
    parser = argparse.ArgumentParser(prog="python -m paper_tables", description="Records -> tables, plots, report.")
    parser.add_argument("--tier", choices=TIERS, default="smoke", help="whose records (default: smoke)")
    parser.add_argument("--records", type=Path, default=DEFAULT_FOLDER, help="folder of the records")
    parser.add_argument("--out", type=Path, help=f"folder to write to (default: {RENDERED.name}/<tier> beside this)")
    parser.add_argument("--readme", action="store_true", help="also fill the tables of README.md")
    options = parser.parse_args(arguments)
    store = Store(options.records)
    try:
        report = render(options.tier, options.out, store)
        if options.readme:
            README.write_text(filled(README.read_text(encoding="utf-8"), store), encoding="utf-8")
        print(terminal_table(options.tier, store))
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\nreport: {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
