"""The weights of a checkpoint into a model that exists already, wider or as wide, whatever wrote them.

transformers stores some families under other keys than their modules have, in several files where they are large, and
tied weights once. Its own loader knows all of that, but only builds new models. So it is handed a copy of the model
without memory, which it fills as it would any other; only what arrived whole goes on into the model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.manifest import CheckpointError, Manifest, only_listed
from ecospa.saved_shape import Shape, narrow_to
from ecospa.wrappers import unwrapped

_DTYPES = {"F64": "torch.float64", "F32": "torch.float32", "F16": "torch.float16", "BF16": "torch.bfloat16"}
_PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def fill(model: nn.Module, folder: Path, manifest: Manifest, shape: Shape) -> None:
    """Cut a model in hand to a checkpoint's shape and give it the checkpoint's weights; nothing changes on an error.

    Args:
        model: transformers' model or any other, compiled or not, as wide as the checkpoint or wider.
        folder: the checkpoint.
        manifest: of `ecospa.manifest.verify`.
        shape: what was cut from the checkpoint's model.

    Raises:
        CheckpointError: a weight is missing, unexpected, or of another shape or dtype; the message names it.
    """
    from transformers import PreTrainedModel

    own = unwrapped(model)
    twin = _without_memory(own)
    narrow_to(twin, shape, folder)
    if isinstance(own, PreTrainedModel):
        weights = _through_transformers(twin, folder, manifest)
    else:
        weights = _as_stored(folder, manifest)
    _check(twin, weights, _stored_dtypes(folder, manifest), folder)
    narrow_to(own, shape, folder)
    _copy(own, weights)


def _without_memory(model: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes and dtypes but no content; shared ones stay shared."""
    memory: dict[int, Any] = {}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memory[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memory[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memory)


def _through_transformers(twin: nn.Module, folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    """Weights under the names of the model, as transformers' own loader converts them."""
    base: Any = type(twin)

    def stand_in(cls: Any, *args: Any, **kwargs: Any) -> nn.Module:
        return twin

    # name and module stay the model's own, because key conversions are found by them
    kind: Any = type(base.__name__, (base,), {"__new__": stand_in, "__module__": base.__module__})
    try:
        # the loader may draw random numbers for buffers that no checkpoint holds; the run's own order must not notice
        with only_listed(folder, manifest) as files, torch.random.fork_rng(devices=[]):
            filled, report = kind.from_pretrained(files, config=twin.config, output_loading_info=True)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: its weights do not fit this model ({error})") from error
    for problem in _PROBLEMS:
        if keys := report[problem]:
            raise CheckpointError(
                f"{folder}: {problem.replace('_', ' ')}: {sorted(map(str, keys))[:3]}; it is incomplete or of another "
                "model; for another class of the same one, give that class as into="
            )
    return dict(filled.state_dict())


def _as_stored(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for name in _weight_files(manifest):
        weights |= load_file(folder / name)
    return weights


def _weight_files(manifest: Manifest) -> list[str]:
    return [name for name in manifest.model_files if name.endswith(".safetensors")]


def _stored_dtypes(folder: Path, manifest: Manifest) -> set[str]:
    """Floating-point dtypes of the stored weights, by the names that torch has for them."""
    from safetensors import safe_open

    found = set()
    for name in _weight_files(manifest):
        with safe_open(folder / name, framework="pt") as stored:
            found |= {_DTYPES[kind] for key in stored.keys() if (kind := stored.get_slice(key).get_dtype()) in _DTYPES}
    return found


def _check(twin: nn.Module, weights: Mapping[str, Tensor], stored: set[str], folder: Path) -> None:
    """Refuse weights that are not exactly those of the twin."""
    expected: dict[str, Any] = twin.state_dict(keep_vars=True)
    there = {id(expected[name]) for name in weights if name in expected}  # one name is enough for a shared tensor
    problems = (
        ("missing", [name for name, value in expected.items() if isinstance(value, Tensor) and id(value) not in there]),
        ("unexpected", [name for name in weights if name not in expected]),
        (
            "of another shape",
            [name for name in weights if name in expected and weights[name].shape != expected[name].shape],
        ),
    )
    for problem, names in problems:
        if names:
            raise CheckpointError(f"{folder}: {problem}: {sorted(names)[:3]}; it is incomplete or of another model")
    own = {str(value.dtype) for value in expected.values() if isinstance(value, Tensor) and value.is_floating_point()}
    if stored and stored != own:
        raise CheckpointError(
            f"{folder}: its weights are {', '.join(sorted(stored))}, the model's {', '.join(sorted(own))}; a resumed "
            "run would start from rounded ones, so build the model with the checkpoint's dtype"
        )


@torch.no_grad()
def _copy(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own: dict[str, Any] = model.state_dict()
    for name, value in weights.items():
        if isinstance(value, Tensor):
            own[name].copy_(value)
