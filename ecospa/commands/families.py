"""families: architectures that can be cut."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from ecospa.commands import Command
from ecospa.families import families


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON instead of lines")


def _run(given: Namespace) -> int:
    found = {family.name: sorted(family.blocks) for family in families()}
    if given.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, blocks in found.items():
        print(name)
        print("".join(f"  {block}\n" for block in blocks), end="")
    return 0


COMMAND = Command(
    name="families",
    about="Architectures that can be cut, with the transformer blocks that are known of each.",
    arguments=_arguments,
    run=_run,
    examples=("families", "families --json"),
)
