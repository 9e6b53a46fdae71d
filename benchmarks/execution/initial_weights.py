"""Starting from weights that others have trained, `--weights DIR`.

Which weights they are goes into the settings and so into the hash of a run; where they lie does not.

A plan reads this, so nothing here imports torch: sizes come from config.json, identity from the bytes of the files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data.fingerprints import fingerprint
from benchmarks.data.source import BoundSource
from benchmarks.data.sources import minilm
from benchmarks.experiment import Cell, Experiment, MethodRef, Tier
from benchmarks.specs.encoder import FROM_NOTHING, EncoderSpec, SpanSpec
from benchmarks.specs.training import TrainingSettings

FINE_TUNING_RATE = 5e-5
"""Highest rate of BERT's own fine-tuning; rates for training from nothing would spoil what the weights know."""
SIZES = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "positions": "max_position_embeddings",
}
"""Field of EncoderSpec -> entry of a checkpoint's config.json."""
WEIGHTS_OF_OTHERS = ("hub_weights", "minilm")
"""Sources that nothing needs where a folder holds the weights."""


@dataclass(frozen=True)
class StartedSettings(TrainingSettings):
    """Settings of a run whose encoder starts from the weights in `folder`; `model.weights` says which they are."""

    folder: Path


def started_from(experiments: Sequence[Experiment], folder: Path, tier: Tier) -> list[Experiment]:
    """The same experiments, those with encoders starting from the weights in a folder.

    Args:
        experiments: at least one of them trains an EncoderSpec.
        folder: of a Hugging Face BERT checkpoint, with config.json and safetensors files.
        tier: of the runs.

    Raises:
        ValueError: no experiment trains an encoder in this tier, the folder holds no such checkpoint, or it does not
            fit an experiment's tokenizer or input length.
    """
    fitting = {one.name for one in experiments if tier in one.tiers and _has_encoders(one, tier)}
    if not fitting:
        names = ", ".join(one.name for one in experiments)
        raise ValueError(
            f"weights is {str(folder)!r}, and {names} trains no BERT in tier {tier}; leave it out, or name another"
        )
    return [_with_weights(one, folder) if one.name in fitting else one for one in experiments]


def _has_encoders(experiment: Experiment, tier: Tier) -> bool:
    cells = experiment.cells(tier, tuple(MethodRef(name) for name in experiment.methods))
    return any(isinstance(getattr(cell.settings, "model", None), EncoderSpec) for cell in cells)


def _with_weights(experiment: Experiment, folder: Path) -> Experiment:
    def cells(tier: Tier, methods: tuple[MethodRef, ...]) -> tuple[Cell, ...]:
        wanted = tuple(method for method in methods if method.name not in FROM_NOTHING)
        return tuple(_started(cell, folder) for cell in experiment.cells(tier, wanted))

    def sources(tier: Tier) -> tuple[BoundSource, ...]:
        return tuple(one for one in experiment.sources(tier) if one.source.name not in WEIGHTS_OF_OTHERS)

    return dataclasses.replace(experiment, cells=cells, sources=sources)


def _started(cell: Cell, folder: Path) -> Cell:
    settings = cell.settings
    model = _spec(settings.model, folder)
    if model.positions < settings.protocol.sequence_length:
        need = settings.protocol.sequence_length
        raise ValueError(
            f"{folder} has {model.positions} positions, and {cell.experiment} needs {need}; give other weights"
        )
    rate = min(settings.training.learning_rate, FINE_TUNING_RATE)
    changed = {"model": model, "training": dataclasses.replace(settings.training, learning_rate=rate)}
    # crutches of encoders that start from nothing
    crutches: dict[str, Any] = {"marked": False}
    if isinstance(settings.protocol, SpanSpec):
        crutches["only_answered"] = False
    if settings.protocol.tokenizer == minilm.HUB_ID:
        crutches["tokenizer"] = "bert-base-uncased"  # the same one, and not of a package that nothing else needs here
    changed["protocol"] = dataclasses.replace(settings.protocol, **crutches)
    parts = {field.name: getattr(settings, field.name) for field in dataclasses.fields(TrainingSettings)}
    return dataclasses.replace(cell, settings=StartedSettings(**{**parts, **changed}, folder=folder))


def _spec(spec: EncoderSpec, folder: Path) -> EncoderSpec:
    config = _config(folder)
    if config["vocab_size"] != spec.vocabulary:
        raise ValueError(
            f"{folder} has a vocabulary of {config['vocab_size']}, the tokenizer here one of {spec.vocabulary}; "
            "take a tier that reads text with bert-base-uncased (cpu, gpu, paper) and weights of that vocabulary"
        )
    sizes = {name: config[key] for name, key in SIZES.items()}
    return dataclasses.replace(spec, **sizes, weights=fingerprint(folder))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"weights is {str(folder)!r}; its config.json cannot be read: {error}") from error
    place = folder / "config.json"
    for name in (*SIZES.values(), "vocab_size"):
        if not isinstance(config.get(name), int):
            raise ValueError(
                f"{place}: {name} is {config.get(name)!r}; it must be a whole number, as in a BERT's config"
            )
    wanted = {"model_type": "bert", "hidden_act": "gelu", "intermediate_size": 4 * config["hidden_size"]}
    for name, value in wanted.items():
        if config.get(name) != value:
            raise ValueError(f"{place}: {name} is {config.get(name)!r}; it must be {value!r}, as in a plain BERT")
    return config
