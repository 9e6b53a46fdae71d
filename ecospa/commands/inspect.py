"""inspect: pairs of a model, their widths, and where a text is given their importance."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence

import torch

from ecospa.architecture import empty_model
from ecospa.calibration_text import importances, token_sequences
from ecospa.commands import Command
from ecospa.dense import dense_shape
from ecospa.families import coupled_pairs
from ecospa.model_folder import load_model
from ecospa.pairs import CoupledPair

_BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder, Hugging Face id, or timm/NAME; its config is enough")
    parser.add_argument("--calibration", metavar="FILE", help="UTF-8 text: adds importances; needs weights, tokenizer")
    parser.add_argument("--sequences", type=int, default=32, help="of the text at most")
    parser.add_argument("--seq", type=int, default=128, help="tokens per sequence")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of sequences")
    parser.add_argument("--json", action="store_true", help="JSON instead of a picture")


def _run(given: Namespace) -> int:
    found: Mapping[str, float] = {}
    if given.calibration is None:
        model = empty_model(given.model)
    else:
        model = load_model(given.model)
        rows = token_sequences(given.model, given.calibration, given.sequences, given.seq, given.seed)
        found = importances(model, torch.split(rows, 4))
    pairs = coupled_pairs(model)
    dense = {name: heads * width for name, (heads, width) in dense_shape(model, pairs).items()}
    print(_as_json(pairs, dense, found) if given.json else _picture(pairs, dense, found))
    return 0


def _as_json(pairs: Sequence[CoupledPair], dense: Mapping[str, int], found: Mapping[str, float]) -> str:
    rows = [
        {
            "pair": pair.name,
            "kind": pair.kind.value,
            "groups": pair.groups,
            "width": pair.width,
            "unit": pair.unit,
            "dense_width": dense[pair.name],
            "importance": found.get(pair.name),
        }
        for pair in pairs
    ]
    return json.dumps(rows, indent=2)


def _picture(pairs: Sequence[CoupledPair], dense: Mapping[str, int], found: Mapping[str, float]) -> str:
    """One line per pair: name, groups times width, a bar of the share of its dense width, importance rank."""
    longest = max(len(pair.name) for pair in pairs)
    ranks = {name: rank for rank, name in enumerate(sorted(found, key=lambda name: found[name]), start=1)}
    lines = []
    for pair in pairs:
        share = pair.groups * pair.width / dense[pair.name]
        widths = f"{pair.groups} x {pair.width}" if pair.groups > 1 else str(pair.width)
        told = f"  {found[pair.name]:.2e}  {ranks[pair.name]:>3} of {len(ranks)}" if found else ""
        lines.append(f"{pair.name:<{longest}}  {widths:>9}  {bar(share)} {share:>4.0%}{told}")
    header = f"{'pair':<{longest}}  {'width':>9}  {'share of the dense width':<{_BAR + 5}}"
    return "\n".join([header + ("  importance, rank from the least" if found else ""), *lines])


def bar(share: float) -> str:
    """A bar of block characters.

    Args:
        share: in [0, 1].
    """
    eighths = round(share * _BAR * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(_BAR)


COMMAND = Command(
    name="inspect",
    about="Coupled pairs of a model with their widths now and before the first cut, as a picture; with a text also "
    "their importance.",
    arguments=_arguments,
    run=_run,
    examples=("inspect smaller", "inspect gpt2 --calibration text.txt", "inspect timm/deit_tiny_patch16_224 --json"),
)
