"""Folders that open without ecospa: one format = one file, found by scanning this folder.

What a format costs is known before anything is written, and what was written is loaded again and compared.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.accounting import parameters
from ecospa.checkpoint import belongs_to_model
from ecospa.config import ConfigError
from ecospa.dense import dense_parameters
from ecospa.folders import replacing
from ecospa.manifest import CheckpointError
from ecospa.probe import outputs_of, probe_batch
from ecospa.wrappers import unwrapped

_TOLERANCE = 100
"""Roundings of its dtype by which an exported model may differ: sums with zeros in them are taken in another order."""


@dataclass(frozen=True)
class Format:
    """A format that a model can be exported to.

    Attributes:
        name: word of the command line.
        about: who can open it, in half a sentence.
        write: (cut model, empty folder, options) -> what stands there, loaded again.
        stored: (cut model, options) -> parameters that the folder will hold.
        options: name of an option -> values it may have, the default first.
        loading: lines of Python that load the folder, with FOLDER in place of its path.
    """

    name: str
    about: str
    write: Callable[[Any, Path, Mapping[str, str]], Any]
    stored: Callable[[Any, Mapping[str, str]], int]
    loading: Callable[[Any], str]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Export:
    """A folder that was written, or that would be.

    Attributes:
        format: name of the format.
        parameters: of the cut model.
        stored: parameters that the folder holds.
        dense: parameters before the first cut.
        loading: lines of Python that load it.
        difference: largest difference of an output of the exported model from the cut one's; None before it is written
            and for a model whose inputs are not known.
    """

    format: str
    parameters: int
    stored: int
    dense: int
    loading: str
    difference: float | None = None

    def __str__(self) -> str:
        """Sizes in one line."""
        extra = self.stored / self.parameters - 1
        return (
            f"{self.format}: {self.stored:,} parameters, {extra:.1%} more than the cut model's {self.parameters:,}; "
            f"the dense model has {self.dense:,}"
        )


@functools.cache
def formats() -> dict[str, Format]:
    """Every format of this folder, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [importlib.import_module(f"{__name__}.{name}").FORMAT for name in names]
    return {one.name: one for one in found}


def export_cost(model: nn.Module, to: str = "hf", **options: str) -> Export:
    """Sizes that an export would have; nothing is written.

    Args:
        model: a transformers model, cut or whole.
        to: name of a format.
        options: of the format.

    Raises:
        ConfigError: there is no such format or option.
        UnsupportedModelError: the format has no place for something of the model.
    """
    chosen, given = _chosen(to, options)
    cut = unwrapped(model)
    return Export(to, parameters(cut), chosen.stored(cut, given), dense_parameters(cut), chosen.loading(cut))


def export_model(model: nn.Module, folder: str | Path, to: str = "hf", **options: str) -> Export:
    """Write a model to a folder that opens without ecospa.

    The folder is replaced as a whole, when everything has been written, loaded again and compared. Files in it that
    belong to no model (tokenizer, logs) stay.

    Args:
        model: a transformers model, cut or whole; it is not changed.
        folder: made if it is not there.
        to: "hf" is plain transformers, padded with zeros; "hf-auto" has the cut shapes, and a modelling file with them.
        options: of the format; `fit="original"` pads "hf" to the widths from before the first cut.

    Returns:
        Sizes, and how to load it.

    Raises:
        ConfigError: there is no such format or option.
        UnsupportedModelError: the format has no place for something of the model.
        CheckpointError: what was written computes something else, or the place cannot be written; the folder is as it
            was then.
    """
    chosen, given = _chosen(to, options)
    cut, target = unwrapped(model), Path(folder)
    with replacing(target, belongs_to_model(target)) as side:
        written = chosen.write(cut, side, given)
        difference = _difference(cut, written, target)
    loading = chosen.loading(cut).replace("FOLDER", repr(str(target)))
    return Export(to, parameters(cut), parameters(written), dense_parameters(cut), loading, difference)


def _chosen(to: str, options: Mapping[str, str]) -> tuple[Format, dict[str, str]]:
    known = formats()
    if to not in known:
        raise ConfigError(f"to is {to!r}; choose from {', '.join(known)}")
    chosen = known[to]
    for name, value in options.items():
        if name not in chosen.options:
            allowed = ", ".join(chosen.options) or "none"
            raise ConfigError(f"{name} is {value!r}; the format {to} has the options: {allowed}")
        if value not in chosen.options[name]:
            raise ConfigError(f"{name} is {value!r}; choose from {', '.join(chosen.options[name])}")
    return chosen, {name: options.get(name, values[0]) for name, values in chosen.options.items()}


@torch.no_grad()
def _difference(cut: Any, written: Any, target: Path) -> float | None:
    """Largest difference of the outputs for a probe batch; None where the model wants other inputs than these.

    Raises:
        CheckpointError: it is more than rounding.
    """
    batch = probe_batch(cut)
    if batch is None:
        return None
    try:
        expected = [value.float().cpu() for value in outputs_of(cut, batch)]
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return None
    found = [value.float() for value in outputs_of(written, {name: value.cpu() for name, value in batch.items()})]
    largest = max((_largest(a - b) for a, b in zip(expected, found, strict=True)), default=0.0)
    scale = max((_largest(value) for value in expected), default=0.0)
    dtype = next(parameter.dtype for parameter in cut.parameters() if parameter.is_floating_point())
    if not largest <= _TOLERANCE * torch.finfo(dtype).eps * max(1.0, scale):
        raise CheckpointError(
            f"{target} is as it was: the exported model's outputs differ by {largest:.1e} at outputs of {scale:.1e}, "
            f"which is more than rounding in {dtype}; save it with ecospa.save_pretrained, and report this"
        )
    return largest


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
