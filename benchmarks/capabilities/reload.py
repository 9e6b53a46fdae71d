"""Loads a saved model in a process of its own and says what it gives: half of a check of experiments/peers.py.

python -m benchmarks.capabilities.reload FOLDER: FOLDER holds `inputs.json` (side, shape of the model),
`inputs.safetensors`, and one folder or file per way of saving; what comes out is written beside them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file

from baselines.calibration import outputs
from benchmarks.models.language import silence_transformers
from benchmarks.models.synthetic import build
from benchmarks.specs.synthetic import ModelShape

WAYS = ("safetensors", "pickle")


def load(way: str, side: str, shape: ModelShape, folder: Path) -> Any:
    """A model as it was saved, by the counterpart of what saved it.

    Args:
        way: "safetensors" or "pickle".
        side: "ecospa" or "torch_pruning".
        shape: of the dense model, for a library that builds models by code and not by configuration.
        folder: of both ways.
    """
    if way == "pickle":
        return torch.load(folder / "model.pt", weights_only=False)
    place = folder / "model"
    if side == "ecospa":
        import ecospa

        return ecospa.from_pretrained(place)
    if (place / "config.json").exists():
        import transformers

        (name,) = json.loads((place / "config.json").read_text())["architectures"]
        return getattr(transformers, name).from_pretrained(place)
    model = build(shape).double()
    load_model(model, str(place / "model.safetensors"))
    return model


def try_all(folder: Path) -> dict[str, str]:
    """Load by every way and write the outputs; returns the errors, empty where there was none."""
    request = json.loads((folder / "inputs.json").read_text())
    batch, shape = load_file(folder / "inputs.safetensors"), ModelShape(**request["shape"])

    def attempt(way: str) -> str:
        try:
            model = load(way, request["side"], shape, folder).eval()
            with torch.no_grad():
                save_file({"outputs": outputs(model, batch).contiguous()}, folder / f"{way}.outputs.safetensors")
        except Exception as error:  # whatever it is, it is what the table says
            return described(error)
        return ""

    return {way: attempt(way) for way in WAYS}


def described(error: BaseException) -> str:
    """Type and beginning of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def main(arguments: list[str]) -> int:
    """Obey the command line; the errors go to the standard output as JSON."""
    silence_transformers()
    torch.set_num_threads(1)
    print(json.dumps(try_all(Path(arguments[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
