"""StepCounter: how many steps the optimizers have really taken, whatever a loop calls and however often.

Micro-batches of an accumulated step, and steps that loss scaling skipped, are calls and no steps. So the optimizers are
asked: torch calls a hook after every step that happens.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch.optim import Optimizer

from ecospa.optimizers import all_of


class StepCounter:
    """Counts optimizer steps from its construction on.

    Several optimizers that share a model's parameters step together: between two readings the steps of the one that
    stepped most often count, so that Muon and AdamW side by side make one step of two.

    Args:
        optimizer: an optimizer (an accelerate wrapper is fine), or several.

    Attributes:
        seen: steps that were read so far.
    """

    def __init__(self, optimizer: Any) -> None:
        self._carried = 0
        self._chains = [[_Watch(one) for one in _hooked(root)] for root in all_of(optimizer)]
        self._roots = all_of(optimizer)
        watches = [watch for chain in self._chains for watch in chain]
        self._release = weakref.finalize(self, _remove, [watch.handles for watch in watches])
        self.seen = 0

    @property
    def asks_optimizers(self) -> bool:
        """True if any optimizer tells of its steps; where none does, every reading counts as one step."""
        told = any(watch.ever for chain in self._chains for watch in chain)
        return told or any(_calls_hooks(root) for root in self._roots)

    @property
    def waiting(self) -> int:
        """Steps since the last reading, without reading them."""
        return self._carried + max((_outermost(chain) for chain in self._chains), default=0)

    @property
    def total(self) -> int:
        """Steps so far, read or not."""
        return self.seen + self.waiting

    def leave_step(self) -> None:
        """Note that no optimizer is inside its step(): one that raised never said that it was over."""
        for chain in self._chains:
            for watch in chain:
                watch.depth = 0

    def carry(self, steps: int) -> None:
        """Take over steps that an interrupted run had not read yet."""
        self._carried = steps

    def read(self) -> int:
        """Steps since the last reading; they are then counted as seen."""
        steps = self.waiting if self.asks_optimizers else 1
        self.leave_step()
        for chain in self._chains:
            for watch in chain:
                watch.steps = 0
        self._carried = 0
        self.seen += steps
        return steps

    def close(self) -> None:
        """Take the hooks off the optimizers."""
        self._release()


class _Watch:
    """Steps of one optimizer since the last reading; holds no reference to it."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.steps, self.depth, self.ever = 0, 0, False
        self.handles = (
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        )

    def _before(self, optimizer: Optimizer, *arguments: Any) -> None:
        self.depth += 1

    def _after(self, optimizer: Optimizer, *arguments: Any) -> None:
        # a step() that calls the step() of its base class calls the hooks twice
        self.depth -= 1
        if self.depth <= 0:
            self.depth, self.ever = 0, True
            self.steps += not _skips_inside(optimizer)


def _skips_inside(optimizer: Optimizer) -> bool:
    """Return whether this step does nothing: fused optimizers get infinite gradients too, and skip inside."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _outermost(chain: list[_Watch]) -> int:
    return next((watch.steps for watch in chain if watch.steps), 0)


def _hooked(optimizer: Any) -> list[Optimizer]:
    """The optimizer and those it wraps, the outermost first, as far as they can call hooks at all."""
    found: list[Optimizer] = []
    inside = [optimizer]
    while inside:
        one = inside.pop(0)
        if any(one is known for known in found):
            continue
        if isinstance(one, Optimizer) and "_optimizer_step_post_hooks" in vars(one):
            found.append(one)
        inside += [value for value in getattr(one, "__dict__", {}).values() if isinstance(value, Optimizer)]
    return found


_INNER = ("_torchdynamo_orig_callable", "__func__", "__wrapped__")
"""Attribute in which a wrapped function keeps the one that it wraps."""


def _calls_hooks(optimizer: Any) -> bool:
    """Return whether `optimizer.step`, or that of one inside it, is torch's own way in, which calls the hooks."""
    for one in _hooked(optimizer):
        own = getattr(type(one).step, "hooked", False)
        step: Any = vars(one).get("step")
        while step is not None and step is not type(one).step:  # learning rate schedules and compilers wrap it
            step = next((inner for name in _INNER if (inner := getattr(step, name, None)) is not None), None)
            own = own and step is not None
        if own:
            return True
    return False


def _remove(handles: list[tuple[Any, ...]]) -> None:
    for pair in handles:
        for handle in pair:
            handle.remove()
