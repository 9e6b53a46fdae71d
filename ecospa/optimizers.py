"""One optimizer or several, wrapped by accelerate or not: which there are, and which parameters they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ecospa.config import ConfigError


def all_of(optimizer: Any) -> tuple[Any, ...]:
    """The optimizers behind what a caller gave: none, one, or a list, each without accelerate's wrapper.

    Args:
        optimizer: None, an optimizer (an accelerate wrapper is fine), or a list or tuple of them.

    Raises:
        ConfigError: the list is empty, or something in it is no optimizer.
    """
    if optimizer is None:
        return ()
    several = isinstance(optimizer, Sequence) and not isinstance(optimizer, str)
    given = optimizer if several else (optimizer,)
    if not given:
        raise ConfigError("optimizer is an empty list; give one optimizer, or every one that trains the model")
    found = tuple(_unwrapped(one) for one in given)
    for position, one in enumerate(found):
        if not hasattr(one, "param_groups") or not hasattr(one, "state"):
            name = f"optimizer[{position}]" if several else "optimizer"
            raise ConfigError(
                f"{name} is a {type(one).__name__}; give a torch.optim.Optimizer, or a list of those that share the "
                "model's parameters"
            )
    return found


def held_parameters(optimizer: Any) -> set[int]:
    """Identities of the parameters that an optimizer, or any of several, trains."""
    return {id(parameter) for one in all_of(optimizer) for group in one.param_groups for parameter in group["params"]}


def held_twice(optimizer: Any) -> dict[int, tuple[str, str]]:
    """Parameters that two of several optimizers train.

    Returns:
        Identity of a parameter -> class names of the two.
    """
    holder: dict[int, tuple[int, str]] = {}
    twice: dict[int, tuple[str, str]] = {}
    for number, one in enumerate(all_of(optimizer)):
        for group in one.param_groups:
            for parameter in group["params"]:
                first = holder.setdefault(id(parameter), (number, type(one).__name__))
                if first[0] != number:
                    twice[id(parameter)] = (first[1], type(one).__name__)
    return twice


def names_of(optimizer: Any) -> str:
    """Class names for a message: "AdamW", or "Muon and AdamW"."""
    return " and ".join(type(one).__name__ for one in all_of(optimizer))


def _unwrapped(optimizer: Any) -> Any:
    # accelerate's alone: other wrappers, such as lookahead ones, keep state of their own besides that of the inner one
    while any(kind.__module__.partition(".")[0] == "accelerate" for kind in type(optimizer).__mro__):
        optimizer = optimizer.optimizer
    return optimizer
