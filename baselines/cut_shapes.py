"""Checkpoints of models whose blocks another library has cut: every shape next to the weights, and no pickle.

The library's own checkpoints are pickles of whole modules. Here the shapes of all parameters inside the blocks are
written down, with the whole numbers that modules keep about their own shape, and a dense model is given both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from baselines.method import architecture
from ecospa.checkpoint import CheckpointError
from ecospa.families import transformer_blocks

SHAPES = "cut_shapes.json"

COUNTS = ("in_features", "out_features", "num_heads", "num_attention_heads", "all_head_size", "attn_dim")
"""Whole numbers that a module of a block keeps about its shape, and that change with it."""


def save_shapes(model: nn.Module, folder: Path) -> None:
    """Write weights, shapes and counts, whether anything was cut or not.

    Args:
        model: a model of a known family.
        folder: made if it is not there.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_model(model, str(Path(folder) / "model.safetensors"))
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    content = {"version": 1, "dtype": dtype, "shapes": _shapes(model), "counts": _counts(model)}
    (Path(folder) / SHAPES).write_text(json.dumps(content) + "\n")


def load_shapes(folder: Path, dense: nn.Module) -> nn.Module:
    """Read what `save_shapes` wrote.

    Args:
        folder: where.
        dense: the dense model, freshly built; it gets the shapes, counts and weights.

    Returns:
        `dense`, in evaluation mode.

    Raises:
        CheckpointError: a file is damaged or missing, or it belongs to another model.
    """
    path = Path(folder) / SHAPES
    content = _read(path)
    dense.to(getattr(torch, content["dtype"]))
    _reshape(dense, content["shapes"], content["counts"], path)
    try:
        load_model(dense, str(Path(folder) / "model.safetensors"))
    except (RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: its weights cannot be read or do not fit the model ({error})") from error
    return dense.eval()


def _inside(model: nn.Module) -> dict[str, nn.Module]:
    return {
        f"{block_name}.{name}": module
        for block_name, block in transformer_blocks(model).items()
        for name, module in block.named_modules()
        if name
    }


def _shapes(model: nn.Module) -> dict[str, list[int]]:
    """Parameter of a block -> shape."""
    return {
        f"{block_name}.{name}": list(parameter.shape)
        for block_name, block in transformer_blocks(model).items()
        for name, parameter in block.named_parameters()
    }


def _counts(model: Any) -> dict[str, dict[str, int]]:
    """Module of a block, or "config" -> what it says about its shape."""
    by_module = {
        name: {key: value for key, value in vars(module).items() if key in COUNTS and type(value) is int}
        for name, module in _inside(model).items()
    }
    if architecture(model) == "llama":
        config = model.config
        by_module["config"] = {key: getattr(config, key) for key in ("num_attention_heads", "num_key_value_heads")}
    return {name: counts for name, counts in by_module.items() if counts}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        shapes, counts, dtype = content["shapes"], content["counts"], getattr(torch, content["dtype"])
        numbers = [size for shape in shapes.values() for size in shape]
        numbers += [count for own in counts.values() for count in own.values()]
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; copy the whole folder") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); it must hold shapes, counts and a dtype") from error
    if not isinstance(dtype, torch.dtype) or not all(type(number) is int and number > 0 for number in numbers):
        raise CheckpointError(f"{path} is damaged; sizes must be whole numbers of at least 1, and dtype one of torch")
    return dict(content)


def _reshape(dense: Any, shapes: Mapping[str, Any], counts: Mapping[str, Any], path: Path) -> None:
    """Give a dense model the shapes and counts of a checkpoint; its weights are about to be replaced."""
    here, known = _shapes(dense), _counts(dense)
    keys = {name: own.keys() for name, own in counts.items()}
    if here.keys() != shapes.keys() or keys != {name: own.keys() for name, own in known.items()}:
        raise CheckpointError(
            f"{path} belongs to another model than {type(dense).__name__}; build the one it was made of"
        )
    for name, shape in shapes.items():
        if len(shape) != len(here[name]) or any(new > old for new, old in zip(shape, here[name], strict=True)):
            raise CheckpointError(f"{path}: {name} of shape {shape} is no part of this model, where it is {here[name]}")
        parent, _, own = name.rpartition(".")
        old = dense.get_parameter(name)
        setattr(dense.get_submodule(parent), own, nn.Parameter(old.new_empty(shape), old.requires_grad))
    for name, own in counts.items():
        holder = dense.config if name == "config" else dense.get_submodule(name)
        for key, count in own.items():
            if count > known[name][key]:
                raise CheckpointError(f"{path}: {key} of {name} is {count}; this model has {known[name][key]}")
            setattr(holder, key, count)
        if isinstance(holder, nn.Linear) and tuple(holder.weight.shape) != (holder.out_features, holder.in_features):
            raise CheckpointError(f"{path}: the features of {name} do not fit its shape {list(holder.weight.shape)}")
