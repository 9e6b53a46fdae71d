"""Claim: one CoupledSparsity at a time cuts a model; two would each take the other's cuts for their own."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable

from torch import nn

from ecospa.config import ConfigError

_HELD: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Claim]] = weakref.WeakKeyDictionary()
"""Owner of the cuts of a module with a pair; by module, so that a model and a part of it cannot be claimed apart."""


def abandon(model: nn.Module) -> None:
    """Let a new CoupledSparsity have a model whose last one is out of reach, such as in the traceback of an error.

    Args:
        model: the model; the old CoupledSparsity must not be used any more.
    """
    for module in model.modules():
        _HELD.pop(module, None)


class Claim:
    """Holds the modules that may be cut, until it is released or nobody holds the claim any more.

    Args:
        modules: modules that hold the pairs of a model.

    Raises:
        ConfigError: another claim holds one of them.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = weakref.WeakSet(modules)
        if self._taken():
            gc.collect()  # an abandoned one may be waiting for the collector, as after an interrupted trainer
        if self._taken():
            raise ConfigError(
                "another CoupledSparsity is at work on this model and has not reached its target; two would cut "
                "against each other. Call close() on the first (trainer.ecospa.sparsity.close() in a trainer), or "
                "ecospa.claim.abandon(model) where it is lost, before the second is made"
            )
        for module in self._modules:
            _HELD[module] = weakref.ref(self)

    def release(self) -> None:
        """Let others claim the modules; may be called twice."""
        for module in self._modules:
            if (held := _HELD.get(module)) is not None and held() is self:
                del _HELD[module]

    def _taken(self) -> bool:
        holders = (held() for module in self._modules if (held := _HELD.get(module)) is not None)
        return any(holder is not None and holder is not self for holder in holders)
