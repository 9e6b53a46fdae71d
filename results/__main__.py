"""`python -m results export runs.csv`: all records as one table, for pandas, R or a spreadsheet.

`python -m results import records.zip` puts the records that another machine has packed into the folder of records.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from results.archive import import_records
from results.printable import printable
from results.store import DEFAULT_FOLDER, Store
from results.strict import RecordError
from results.table import export, frame


def main(arguments: Sequence[str] | None = None) -> int:
    """Obey a command; returns 0, or 1 with a message."""
    options = _parser().parse_args(arguments)
    return _import(options) if options.command == "import" else _export(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m results", description="Records -> one table; records from afar.")
    commands = parser.add_subparsers(dest="command", required=True)
    export_one = commands.add_parser("export", help="one row per run: its fields, metrics.*, config.*, device.*, ...")
    export_one.add_argument("file", type=Path, help="FILE.csv or FILE.parquet")
    export_one.add_argument("--tier", help="of this tier alone")
    export_one.add_argument("--experiment", help="of this experiment alone")
    import_one = commands.add_parser("import", help="add the records that another machine has packed; none is replaced")
    import_one.add_argument("file", type=Path, help="an archive made by --pack, or a folder of records")
    for command in (export_one, import_one):
        command.add_argument("--records", type=Path, default=DEFAULT_FOLDER, help="folder of the records")
    return parser


def _import(options: argparse.Namespace) -> int:
    try:
        outcome = import_records(options.file, Store(options.records))
    except RecordError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    for path in outcome.duplicates:
        print(f"refused, it is there already: {path}")
    for reason in outcome.refused:
        print(printable(f"refused: {reason}"), file=sys.stderr)
    added, there, wrong = map(len, (outcome.added, outcome.duplicates, outcome.refused))
    print(f"{added} records added, {there} there already, {wrong} refused: {options.records}")
    return int(bool(outcome.refused))


def _export(options: argparse.Namespace) -> int:
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
