"""Everything that a cut changes, as values: two models that are the same in it train and save the same."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_ATTRIBUTES = ("in_features", "out_features", "nx", "nf", "geometry", "_ecospa_dense", "training")


def state_of(model: nn.Module, optimizer: Any = None, followers: Iterable[nn.Module] = ()) -> dict[str, Any]:
    """Weights, gradients, buffers, classes, geometry, records and optimizer state, copied."""
    state: dict[str, Any] = {}
    for number, one in enumerate((model, *followers)):
        state.update({f"{number} {name}": value for name, value in _model_state(one)})
    if optimizer is not None:
        names = {parameter: name for name, parameter in model.named_parameters()}
        for parameter, entries in optimizer.state.items():
            for key, value in entries.items():
                state[f"optimizer {names[parameter]} {key}"] = copy.deepcopy(value)
    return state


def _model_state(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters():
        yield f"{name} data", parameter.detach().clone()
        yield f"{name} requires_grad", parameter.requires_grad
        yield f"{name} grad", None if parameter.grad is None else parameter.grad.clone()
    for name, buffer in model.named_buffers():
        yield f"{name} buffer", buffer.clone()
    yield "state dict", list(model.state_dict())
    for name, module in model.named_modules():
        yield f"{name} class", type(module)
        for attribute in _ATTRIBUTES:
            if attribute in vars(module):
                yield f"{name} {attribute}", copy.deepcopy(vars(module)[attribute])
        config = getattr(module, "config", None)
        if hasattr(config, "to_dict"):
            yield f"{name} config", config.to_dict()


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of what is not the same, bit for bit."""
    return sorted(set(first) ^ set(second)) + [
        name for name in first if name in second and not _same(first[name], second[name])
    ]


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        alike = first.shape == second.shape and first.dtype == second.dtype
        return alike and torch.equal(first, second)
    return bool(first == second)
