"""Commands of the command line: one command = one file, found by scanning this folder."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

FOUND, USAGE = 1, 2
"""Exit codes: something was found, or could not be done; a wrong argument."""
EXIT = "Exit code: 0 all is well, 1 something was found or could not be done, 2 a wrong argument."


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: word of the command line.
        about: what it does, in one sentence.
        arguments: adds its arguments to its parser.
        run: obeys parsed arguments and returns the exit code.
        examples: command lines without the program, shown in its help.
        options: dataclass whose fields become options, besides `arguments`.
    """

    name: str
    about: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    examples: tuple[str, ...]
    options: type | None = None


@functools.cache
def commands() -> dict[str, Command]:
    """Every command of this folder, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [importlib.import_module(f"{__name__}.{name}").COMMAND for name in names]
    return {one.name: one for one in found}
