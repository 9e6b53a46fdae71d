"""One optimizer or several, wrapped by accelerate or not: which there are, and which parameters they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def all_of(optimizer: Any) -> tuple[Any, ...]:
    """The optimizers behind what a caller gave: none, one, or a list, each without accelerate's wrapper.

    Args:
        optimizer: None, an optimizer (an accelerate wrapper is fine), or a list or tuple of them.
    """
    if optimizer is None:
        return ()
    given = optimizer if isinstance(optimizer, Sequence) else (optimizer,)
    return tuple(_unwrapped(one) for one in given)


def held_parameters(optimizer: Any) -> set[int]:
    """Identities of the parameters that an optimizer, or any of several, trains."""
    return {id(parameter) for one in all_of(optimizer) for group in one.param_groups for parameter in group["params"]}


def names_of(optimizer: Any) -> str:
    """Class names for a message: "AdamW", or "Muon and AdamW"."""
    return " and ".join(type(one).__name__ for one in all_of(optimizer))


def _unwrapped(optimizer: Any) -> Any:
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer
