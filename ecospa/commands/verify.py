"""verify: proof that a checkpoint is what it says."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from ecospa.commands import FOUND, Command
from ecospa.manifest import MANIFEST, CheckpointError
from ecospa.model_folder import existing
from ecospa.verification import verify_folder


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="that ecospa.save_pretrained or a trainer wrote")
    parser.add_argument("--json", action="store_true", help="JSON instead of Markdown")


def _run(given: Namespace) -> int:
    folder = existing(given.folder)
    try:
        found = verify_folder(folder)
    except CheckpointError as error:
        print(json.dumps({"damaged": str(error)}) if given.json else f"damaged: {error}")
        return FOUND
    sealed = (folder / MANIFEST).is_file()
    if given.json:
        blocks = [{**asdict(one), "difference": _number(one.difference)} for one in found.blocks]
        content = {"blocks": blocks, "disagreements": found.disagreements, "exact": found.exact, "checksums": sealed}
        print(json.dumps(content, indent=2))
    else:
        print(found)
        if not sealed:
            print(f"no {MANIFEST} here: the files were not compared with checksums")
    return 0 if found.exact else FOUND


def _number(value: float) -> float | None:
    """A number for JSON, which has no NaN: that of a block that did not run."""
    return None if math.isnan(value) else value


COMMAND = Command(
    name="verify",
    about="Whether a checkpoint is whole and can be trusted: every file against its manifest, every block cut on a "
    "copy in float64 and compared with the same entries at zero, every width against the config.",
    arguments=_arguments,
    run=_run,
    examples=("verify smaller",),
)
