"""`python -m results export runs.csv`: all records as one table, for pandas, R or a spreadsheet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from results.store import DEFAULT_FOLDER, Store
from results.strict import RecordError
from results.table import export, frame


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table; returns 0, or 1 with a message."""
    parser = argparse.ArgumentParser(prog="python -m results", description="Records -> one table.")
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "export", help="one row per run: its fields, metrics.*, config.*, device.*, versions.*"
    )
    command.add_argument("file", type=Path, help="FILE.csv or FILE.parquet")
    command.add_argument("--records", type=Path, default=DEFAULT_FOLDER, help="folder of the records")
    command.add_argument("--tier", help="of this tier alone")
    command.add_argument("--experiment", help="of this experiment alone")
    options = parser.parse_args(arguments)
    try:
        chosen = Store(options.records).records(experiment=options.experiment, tier=options.tier, status=None)
        table = frame(chosen)
        path = export(table, options.file)
    except (RecordError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(table)} runs, {len(table.columns)} columns: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
