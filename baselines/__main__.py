"""`python -m baselines`: the table of all methods, made from their classes; `--readme` writes it into this README.

A test compares the two, so that a new file in this folder is all that a new method needs.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

import baselines
from baselines.generated import filled, markdown_table
from baselines.method import TrainingMethod

README = Path(__file__).parent / "README.md"
_COLUMNS = ("Group", "Method", "In tables", "File", "What it does", "Removes", "Acts", "Calibration", "Models")


def method_table() -> str:
    """Return the table of all methods in Markdown, by group, and within one in the order of files and names."""
    methods = sorted(baselines.methods().values(), key=lambda method: (method.group, method.__module__, method.name))
    everything = frozenset().union(*(method.architectures for method in methods))
    return markdown_table(_COLUMNS, (_cells(method, everything) for method in methods))


def _cells(method: type[TrainingMethod], everything: frozenset[str]) -> tuple[str, ...]:
    file = method.__module__.rpartition(".")[2]
    what = (inspect.getdoc(method) or "").partition("\n")[0]
    calibration = "needed" if method.needs_calibration else ""
    models = "all" if method.architectures == everything else ", ".join(sorted(method.architectures))
    name, link = (f"`{method.name}`", method.title or method.name), f"[{file}.py]({file}.py)"
    return method.group, *name, link, what, method.removes, method.stage, calibration, models


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table or write it into the README; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m baselines", description="The table of all methods.")
    parser.add_argument("--readme", action="store_true", help="write it between the markers of baselines/README.md")
    if parser.parse_args(arguments).readme:
        README.write_text(filled(README.read_text(encoding="utf-8"), "methods", method_table()), encoding="utf-8")
    else:
        print(method_table(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
