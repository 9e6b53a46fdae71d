"""Low-rank adapters of peft around the matrices of the blocks: put on, merged, saved and read.

Source: Hu et al., LoRA (arXiv 2106.09685), equation 3 and section 4.1.
Equations: h = W x + (alpha / r) B A x, W frozen, A (r, in) by Kaiming's uniform rule, B (out, r) zero: at first the
function is that of the model without adapters. Merged: W + (alpha / r) B A.
Adapters count in no size: they are gone when the run is over, and what is left has the shapes that it had before.
A checkpoint on the way is an ordinary one of the model without its adapters, and next to it a folder with the adapters.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import ecospa
from baselines.block_walk import projections
from ecospa import UnsupportedModelError, coupled_pairs
from ecospa.checkpoint import CheckpointError
from ecospa.families import transformer_blocks

FOLDER = "adapters"
SHAPE = "adapters.json"
WEIGHTS = "adapters.safetensors"
VERSION = 1
_NAME = "default"


def refuse_adapters(model: nn.Module) -> None:
    """Refuse a model that is not plain.

    Raises:
        UnsupportedModelError: it holds adapters already, is quantised, or has a part that ecospa does not know.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            raise UnsupportedModelError(
                f"{name}: it is a {type(module).__module__}.{type(module).__qualname__}, so the model holds adapters "
                "already; merge or unload them first"
            )
    coupled_pairs(model)


def adapter_layers(model: nn.Module) -> dict[str, Any]:
    """Every projection with an adapter, a peft LoraLayer, by its name in the model."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def adapter_weights(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """A, (r, in), and B, (out, r), of a LoraLayer."""
    return layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight


def adapter_parameters(model: nn.Module) -> int:
    """Entries of all A and B."""
    return sum(weight.numel() for layer in adapter_layers(model).values() for weight in adapter_weights(layer))


def inject(model: nn.Module, rank: int, alpha: float, *, train_rest: bool) -> None:
    """Put adapters around all projections of the blocks, in place; their values are yet to be set.

    Args:
        model: a plain model of a known family.
        rank: r, at least 1.
        alpha: scale; the update is alpha / r B A.
        train_rest: whether what is no weight of a projection keeps its `requires_grad`; else it is frozen.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = {
        f"{block_name}.{name}".lstrip("."): module
        for block_name, block in transformer_blocks(model).items()
        for name, module in projections(block).items()
    }
    matrices = {id(module.weight) for module in targets.values()}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in matrices]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=list(targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in targets.values()),
        lora_dropout=0.0,
        init_lora_weights=False,
    )
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay where they are
        inject_adapter_in_model(config, model, adapter_name=_NAME)
    del model.peft_config  # the layers do not need it, and it would outlive them
    assert set(adapter_layers(model)) == set(targets)  # peft may rename targets, which no known family needs
    for parameter in trained if train_rest else ():
        parameter.requires_grad_(True)


@torch.no_grad()
def initialise(model: nn.Module, seed: int, step: int = 0) -> None:
    """New values for all adapters: A by Kaiming's uniform rule, B zero, so that the function is that of W alone.

    Args:
        model: a model with adapters.
        seed: of the run.
        step: optimizer steps completed; every step gives values of its own, the same in every run of a seed.

    Source: arXiv 2106.09685, section 4.1 (there A is Gaussian); the bound is that of the authors' and peft's code.
    """
    generator = torch.Generator("cpu").manual_seed((1_000_003 * (step + 1) + seed) % 2**32)
    for layer in adapter_layers(model).values():
        down, up = adapter_weights(layer)
        fresh = torch.empty(down.shape, dtype=torch.float32, device="cpu")
        down.copy_(nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator))
        up.zero_()


def merge(model: nn.Module) -> None:
    """Add (alpha / r) B A to the weights and take the adapters off, in place; afterwards everything trains again."""
    layers = adapter_layers(model)
    for name, layer in layers.items():
        layer.merge()
        model.set_submodule(name, layer.base_layer)
    if layers:
        model.requires_grad_(True)


def save_adapted(model: nn.Module, folder: Path) -> None:
    """Write a model, with adapters or without: an ordinary checkpoint of it, and its adapters next to it."""
    folder = Path(folder)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    with _without_adapters(model) as layers:
        ecospa.save_pretrained(model, folder)
    if not layers:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        return
    (folder / FOLDER).mkdir(exist_ok=True)
    save_file(_tensors(layers), str(folder / FOLDER / WEIGHTS))
    first = next(iter(layers.values()))
    content = {"version": VERSION, "rank": first.r[_NAME], "alpha": first.lora_alpha[_NAME], "frozen": frozen}
    (folder / FOLDER / SHAPE).write_text(json.dumps(content) + "\n")


def load_adapted(folder: Path) -> nn.Module:
    """Read what `save_adapted` wrote: weights, adapters and what is frozen are as they were.

    Raises:
        CheckpointError: a file is missing or damaged, or belongs to another model.
    """
    folder = Path(folder)
    model: nn.Module = ecospa.from_pretrained(folder)
    if not (folder / FOLDER).exists():
        return model
    rank, alpha, frozen = _read_shape(folder / FOLDER / SHAPE)
    inject(model, rank, alpha, train_rest=True)
    _fill(model, folder / FOLDER / WEIGHTS)
    parameters = dict(model.named_parameters())
    if unknown := sorted(frozen - set(parameters)):
        raise CheckpointError(f"{folder / FOLDER / SHAPE}: the model has no parameter {unknown[0]}; it is another's")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name not in frozen)
    return model.eval()


@contextmanager
def _without_adapters(model: nn.Module) -> Iterator[dict[str, Any]]:
    """The model with its plain projections, not merged, while the context lasts."""
    layers = adapter_layers(model)
    try:
        for name, layer in layers.items():
            model.set_submodule(name, layer.base_layer)
        yield layers
    finally:
        for name, layer in layers.items():
            model.set_submodule(name, layer)


def _tensors(layers: Mapping[str, Any]) -> dict[str, Tensor]:
    pairs = {name: adapter_weights(layer) for name, layer in layers.items()}
    return {f"{name}.{part}": w.detach() for name, pair in pairs.items() for part, w in zip("AB", pair, strict=True)}


@torch.no_grad()
def _fill(model: nn.Module, path: Path) -> None:
    try:
        stored = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); copy the whole folder") from error
    wanted = _tensors(adapter_layers(model))
    different = {name for name in {*stored, *wanted} if name not in stored or name not in wanted}
    different |= {name for name in {*wanted} - different if stored[name].shape != wanted[name].shape}
    if different:
        raise CheckpointError(f"{path}: {min(different)} does not fit the model; it belongs to another one")
    for name, weight in wanted.items():
        weight.copy_(stored[name])


def _read_shape(path: Path) -> tuple[int, float, set[str]]:
    """Rank, alpha and frozen parameters."""
    try:
        content = json.loads(path.read_text())
        version, rank, alpha, frozen = (content[key] for key in ("version", "rank", "alpha", "frozen"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error!r}); copy the whole folder") from error
    if version != VERSION:
        raise CheckpointError(f"{path}: version is {version!r}; this release reads {VERSION}")
    numbers = type(rank) is int and rank >= 1 and type(alpha) in (int, float)
    if not numbers or not isinstance(frozen, list) or not all(isinstance(name, str) for name in frozen):
        raise CheckpointError(f"{path} is damaged; rank is {rank!r} and must be a whole number of at least 1")
    return rank, alpha, set(frozen)
