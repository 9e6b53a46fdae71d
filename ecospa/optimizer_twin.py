"""A fresh optimizer with the class and the settings of a given one, on parameters of our own.

What an optimizer does after a cut is tried before the first step, and never on the optimizer itself. Its constructor is
not known, so there are two ways to another of its kind, and a reason in words where both fail.
"""

from __future__ import annotations

import copy
import enum
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

LEARNING_RATE = 1e-2
"""Of every trial: schedules change the real one, and a warm-up starts from zero."""

SHORT = 3
"""Steps between refreshes, and the least size that is treated apart, inside a trial of few steps and small matrices."""

_COUNTERS = {"step", "steps", "k", "t", "count", "counter", "iteration", "iterations"}
_SIZES = ("size", "rank", "block", "dim")


class NoTwinError(Exception):
    """No fresh optimizer of this kind can be made; the message says why."""


def settings(optimizer: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Plain settings of an optimizer: those of its constructor, and those of every parameter group that differ.

    Counters that training keeps in the groups are not settings: a fresh optimizer starts with its own.
    """
    named, defaults = _arguments(type(optimizer)), getattr(optimizer, "defaults", {})
    common = {}
    for name in named:
        value = defaults[name] if name in defaults else getattr(optimizer, name, inspect.Parameter.empty)
        if value is not inspect.Parameter.empty and _plain(value) and not inspect.ismethod(value):
            common[name] = _trial_value(name, value)
    groups = []
    for group in optimizer.param_groups:
        own = {name: value for name, value in group.items() if name not in ("params", "param_names", "initial_lr")}
        own = {
            name: _trial_value(name, value)
            for name, value in own.items()
            if _plain(value) and (name in named or (name not in defaults and not _counter(name, value)))
        }
        groups.append(own)
    return common, groups


def twin(optimizer: Any, groups: Sequence[Mapping[str, Any]], short: bool = True) -> Any:
    """A fresh optimizer of the same class and settings.

    Args:
        optimizer: the real one; only read.
        groups: parameter groups of the new one: "params", and the settings that `settings` gave for it.
        short: bring intervals and sizes down to what a trial of few steps and small matrices reaches.

    Raises:
        NoTwinError: it wraps another optimizer, or is built from what cannot be made anew, such as the model.
    """
    for name, value in vars(optimizer).items():
        if any(_is_optimizer(one) for one in (value if isinstance(value, (list, tuple)) else (value,))):
            raise NoTwinError(f"it wraps another optimizer ({name}), which keeps state of its own")
    common, _ = settings(optimizer)
    if short:
        common = {name: shortened(name, value) for name, value in common.items()}
        groups = [{name: shortened(name, value) for name, value in group.items()} for group in groups]
    fresh = [{**group, "params": list(group["params"])} for group in groups]
    try:
        made = _constructed(optimizer, common, fresh)
    except Exception as reason:  # a foreign constructor may raise anything; the other way needs none
        made = _refilled(optimizer, fresh, reason)
    if callable(getattr(made, "train", None)):
        made.train()  # schedule-free optimizers step in this mode only
    return made


def shortened(name: str, value: Any) -> Any:
    """A setting for a trial: whole numbers come down to what few steps and small matrices reach."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= SHORT:
        return value
    words = name.lower()
    if any(part in words for part in _SIZES):
        return value if "max" in words else min(value, 16)
    return SHORT


def _constructed(optimizer: Any, common: Mapping[str, Any], groups: list[dict[str, Any]]) -> Any:
    """The first way: call the constructor with its arguments as defaults and attributes remember them."""
    kind = type(optimizer)
    made = kind(groups, **common)
    held = [parameter for group in made.param_groups for parameter in group["params"]]
    if [id(one) for one in held] != [id(one) for group in groups for one in group["params"]]:
        raise NoTwinError("its constructor does not take parameter groups")
    # what the constructor was given under another name than it keeps
    for name, value in vars(optimizer).items():
        if (
            name in vars(made)
            and name not in _base()
            and _plain(value)
            and not _counter(name, value)
            and not callable(value)
        ):
            setattr(made, name, value)
    return made


def _refilled(optimizer: Any, groups: list[dict[str, Any]], reason: Exception) -> Any:
    """The second way: an empty object of the class, its plain attributes copied, the groups as torch makes them."""
    kind: Any = type(optimizer)
    made = kind.__new__(kind)
    for name, value in vars(optimizer).items():
        if name in _base() or (callable(value) and not isinstance(value, nn.Module)):
            continue
        if _touches_parameters(value):
            said = str(reason).splitlines()[0][:80] if str(reason) else ""
            raise NoTwinError(f"it is built from the model or its parameters ({name}; {type(reason).__name__}: {said})")
        setattr(made, name, copy.deepcopy(value))
    try:
        torch.optim.Optimizer.__init__(made, groups, {**optimizer.defaults, **_learning_rate(optimizer.defaults)})
    except Exception as second:  # foreign code again: its class may override what torch's constructor calls
        raise NoTwinError(f"no other of its kind can be made ({type(second).__name__}: {second})") from second
    return made


@functools.cache
def _base() -> frozenset[str]:
    """Attributes of every optimizer, which torch's own constructor makes."""
    return frozenset(vars(torch.optim.Optimizer([nn.Parameter(torch.zeros(1, device="cpu"))], {})))


def _arguments(kind: type) -> dict[str, inspect.Parameter]:
    """Named arguments of a constructor, through every `**options` up to torch's own."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if base is torch.optim.Optimizer or "__init__" not in vars(base):
            continue
        arguments = inspect.signature(vars(base)["__init__"]).parameters
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        # the first two are the object and the parameters
        for name, argument in list(arguments.items())[2:]:
            if argument.kind in named:
                found.setdefault(name, argument)
        if not any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments.values()):
            break
    return found


def _trial_value(name: str, value: Any) -> Any:
    if name == "lr":
        return _learning_rate({"lr": value})["lr"]
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _learning_rate(defaults: Mapping[str, Any]) -> dict[str, Any]:
    value = defaults.get("lr")
    if isinstance(value, Tensor):
        return {"lr": torch.full_like(value.detach(), LEARNING_RATE)}
    return {"lr": LEARNING_RATE} if isinstance(value, (int, float)) else {"lr": value} if "lr" in defaults else {}


def _plain(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not isinstance(value, nn.Parameter)
    if isinstance(value, Mapping):
        return all(_plain(inner) for inner in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_plain(inner) for inner in value)
    simple = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, enum.Enum, type)
    return value is None or isinstance(value, simple) or inspect.isfunction(value) or inspect.isbuiltin(value)


def _counter(name: str, value: Any) -> bool:
    number = isinstance(value, (int, Tensor)) and not isinstance(value, (bool, enum.Enum))
    return number and any(word in _COUNTERS for word in name.lower().split("_"))


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, torch.optim.Optimizer) or (hasattr(value, "param_groups") and hasattr(value, "step"))


def _touches_parameters(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_touches_parameters(inner) for inner in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_touches_parameters(inner) for inner in value)
    return isinstance(value, (nn.Module, nn.Parameter)) or (isinstance(value, Tensor) and value.numel() > 1)
