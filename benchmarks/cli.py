"""The command line of the suite: list, show, run, compare, reproduce, pack and why-different, made from commands.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro
from rich.console import Console

from benchmarks import commands, packing
from results.printable import printable
from results.strict import RecordError

_USAGE = 2


def obey(arguments: Sequence[str] | None = None) -> int:
    """Obey one command; returns 0, 1 when a run failed or could not be made, 2 for a wrong argument."""
    console = Console()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal or file that knows fewer letters than a record may hold
            stream.reconfigure(errors="backslashreplace")
    command = tyro.cli(
        commands.List
        | commands.Show
        | commands.Run
        | commands.Compare
        | commands.Reproduce
        | packing.Pack
        | commands.WhyDifferent,
        prog="python -m benchmarks",
        description="Run the experiments of the EcoSpa reproduction suite.",
        args=arguments,
    )
    try:
        return _obey(command, console)
    except (RecordError, ValueError) as error:
        text = printable(f"error: {error}")
        console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
        return _USAGE


def _obey(command: object, console: Console) -> int:
    match command:
        case commands.List():
            return commands.list_experiments(command, console)
        case commands.Show():
            return commands.show(command, console)
        case commands.Run():
            return commands.run(command, console)
        case commands.Compare():
            return commands.compare(command, console)
        case commands.Reproduce():
            return commands.reproduce(command, console)
        case packing.Pack():
            return packing.pack_for_elsewhere(command, console)
        case commands.WhyDifferent():
            return commands.why_different(command, console)
    raise AssertionError(f"no command: {command!r}")
