"""The command line of the library: `ecospa COMMAND`, or `python -m ecospa COMMAND`; one command = one file."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from textwrap import fill

from ecospa.commands import EXIT, USAGE, Command, commands

_ABOUT = "ecospa: transformers that become smaller while they train, by coupled sparsity."
_WIDTH = 100


class _Help(RawDescriptionHelpFormatter):
    """Help with defaults where there are any."""

    def _get_help_string(self, action: Action) -> str:
        told = action.help or ""
        return told if action.default in (None, False, SUPPRESS) else f"{told} (%(default)s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Obey one command.

    Returns:
        0; 1 where something was found or could not be done; 2 for a wrong argument, whose message names field, value,
        range and way out.
    """
    given = _parser().parse_args(arguments)
    try:
        return commands()[given.command].run(given)
    except ValueError as error:  # ConfigError, UnsupportedModelError, PlanError, CheckpointError
        print(f"error: {error}", file=sys.stderr)
        return USAGE


def _parser() -> ArgumentParser:
    from transformers import HfArgumentParser

    import ecospa

    parser = ArgumentParser(prog="ecospa", description=_ABOUT, epilog=EXIT)
    parser.add_argument("--version", action="version", version=f"ecospa {ecospa.__version__}")
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=HfArgumentParser)
    for command in commands().values():
        own = parts.add_parser(
            command.name,
            help=command.about,
            description=fill(command.about, _WIDTH),
            epilog=_epilog(command),
            formatter_class=_Help,
            dataclass_types=command.options or (),
        )
        command.arguments(own)
    return parser


def _epilog(command: Command) -> str:
    lines = [f"  ecospa {example}" for example in command.examples]
    return "\n".join(["examples:", *lines, "", EXIT])


if __name__ == "__main__":
    sys.exit(main())
