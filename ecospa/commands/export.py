"""export: a folder that opens without ecospa."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from ecospa.commands import FOUND, Command
from ecospa.export import export_cost, export_model, formats
from ecospa.manifest import CheckpointError
from ecospa.model_folder import copy_companions, existing, load_model


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="that ecospa.save_pretrained or a trainer wrote")
    parser.add_argument("out", metavar="OUT", help="folder to write; with --dry-run nothing is written")
    told = "; ".join(f"{one.name}: {one.about}" for one in formats().values())
    parser.add_argument("--to", choices=tuple(formats()), default="hf", help=told)
    fits = formats()["hf"].options["fit"]
    parser.add_argument("--fit", choices=fits, help=f"of hf: shape that is padded to; {fits[0]} by default")
    parser.add_argument("--dry-run", action="store_true", help="print what it would cost, and stop")
    parser.add_argument("--json", action="store_true", help="JSON instead of lines")


def _run(given: Namespace) -> int:
    folder = existing(given.folder)
    options = {} if given.fit is None else {"fit": given.fit}
    try:
        model = load_model(str(folder))
        cost = export_cost(model, given.to, **options)
        if given.dry_run:
            print(json.dumps(asdict(cost), indent=2) if given.json else cost)
            return 0
        if not given.json:
            print(cost)
        written = export_model(model, given.out, given.to, **options)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return FOUND
    copied = copy_companions(str(folder), Path(given.out))
    if given.json:
        print(json.dumps({**asdict(written), "copied": copied}, indent=2))
        return 0
    if written.difference is not None:
        print(f"largest difference of an output: {written.difference:.1e}")
    print(f"copied: {', '.join(copied) or 'no tokenizer or processor was there'}")
    print(f"load it with: {written.loading}")
    return 0


COMMAND = Command(
    name="export",
    about="Write a cut model to a folder that opens without ecospa; its size is printed before anything is written.",
    arguments=_arguments,
    run=_run,
    examples=("export smaller plain", "export smaller plain --to hf-auto", "export smaller plain --dry-run --json"),
)
