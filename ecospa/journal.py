"""All or nothing: changes that are made together, or taken back together by whatever comes in between.

Surgery makes every new tensor first, which may fail and changes nothing; what is left are assignments, which cannot
fail in practice. Still they are taken back if anything is raised among them, because a model that is half cut computes
another function, and neither trains nor loads.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_ABSENT = object()


class Change(Protocol):
    """One thing that becomes another. Taking back is harmless where the change was not made, or only half made."""

    def make(self) -> None:
        """Put the new in the place of the old."""

    def take_back(self) -> None:
        """Put the old back, the very object that was there."""


class NewEntry:
    """An entry of a dictionary or list: optimizer state, or the attributes of a module or configuration.

    Attributes are set in the dictionary that holds them: a `__setattr__` of a user's own class could raise, and could
    not be trusted to take back either.

    Args:
        container: holds the entry.
        key: its key; where it is absent, taking back removes it.
        value: the new one.
    """

    def __init__(self, container: Any, key: Any, value: object) -> None:
        self._container, self._key, self._new = container, key, value
        absent = isinstance(container, MutableMapping) and key not in container
        self._old = _ABSENT if absent else container[key]

    def make(self) -> None:
        """Set the entry."""
        self._container[self._key] = self._new

    def take_back(self) -> None:
        """Set the entry to what it was, or remove it."""
        if self._old is _ABSENT:
            self._container.pop(self._key, None)
        else:
            self._container[self._key] = self._old


class NewClass:
    """Another class for a module.

    Args:
        module: stays the same object.
        kind: its new class.
    """

    def __init__(self, module: nn.Module, kind: type[nn.Module]) -> None:
        self._module, self._old, self._new = module, type(module), kind

    def make(self) -> None:
        """Set the class."""
        object.__setattr__(self._module, "__class__", self._new)

    def take_back(self) -> None:
        """Set the class to what it was."""
        object.__setattr__(self._module, "__class__", self._old)


class NewShape:
    """Other data and gradient, of another shape, for a parameter that stays the same object.

    Args:
        parameter: its optimizer, hooks and every other holder keep it.
        data: the new values.
        grad: the new gradient, or None.
    """

    def __init__(self, parameter: nn.Parameter, data: Tensor, grad: Tensor | None) -> None:
        self._parameter = parameter
        self._old, self._new = (parameter.data, parameter.grad), (data, grad)

    def make(self) -> None:
        """Set data and gradient."""
        self._set(*self._new)

    def take_back(self) -> None:
        """Set both to what they were."""
        self._set(*self._old)

    def _set(self, data: Tensor, grad: Tensor | None) -> None:
        parameter = self._parameter
        parameter.grad = None
        # autograd caches a node with the old shape on the parameter; another dtype in between makes it forget
        parameter.data = torch.empty(
            0, dtype=torch.float64 if data.dtype != torch.float64 else torch.float32, device=data.device
        )
        parameter.data = data
        parameter.grad = grad


class NewValues:
    """Other values in the memory of a parameter, which others may look at.

    Args:
        parameter: keeps its shape and memory.
        values: of the same shape and dtype.
    """

    def __init__(self, parameter: nn.Parameter, values: Tensor) -> None:
        self._data, self._old, self._new = parameter.data, parameter.data.clone(), values

    def make(self) -> None:
        """Write the new values."""
        self._data.copy_(self._new)

    def take_back(self) -> None:
        """Write the old values."""
        self._data.copy_(self._old)


def commit(changes: Sequence[Change]) -> None:
    """Make all changes, or none of them.

    Args:
        changes: in the order in which they are made. They hold what is old until the last one is made, so that the
            old and the new are in memory together.
    """
    with _signals_wait(), ExitStack() as undo:
        for change in changes:  # before the first one is made: there is no moment at which it could not be taken back
            undo.callback(change.take_back)
        for change in changes:
            change.make()
        undo.pop_all()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold back what Python does on signals: a KeyboardInterrupt could come between any two steps of taking back.

    Only the main thread gets signals and may say what they do. Interrupts wait until all changes are made, which takes
    milliseconds, and then do what they would have done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wait = _Wait()
    with ExitStack() as after:
        after.callback(_raise_signals, wait.came)  # the first to be noted is the last to be done: handlers are back
        for number in signal.valid_signals():
            if callable(handler := signal.getsignal(number)):
                after.callback(signal.signal, number, handler)
                signal.signal(number, _noting(weakref.ref(wait), handler))
        yield


class _Wait:
    """Signals that came meanwhile."""

    def __init__(self) -> None:
        self.came: list[int] = []


def _noting(wait: weakref.ref[_Wait], handler: Callable[[int, FrameType | None], Any]) -> Callable[..., None]:
    """Handler that notes signals while the wait lasts. Should it ever outlive it, it gives way to the one before."""

    def note(number: int, frame: FrameType | None) -> None:
        waiting = wait()
        if waiting is not None:
            waiting.came.append(number)
            return
        signal.signal(number, handler)
        handler(number, frame)

    return note


def _raise_signals(numbers: Sequence[int]) -> None:
    with ExitStack() as each:  # one that raises does not swallow the others
        for number in reversed(numbers):
            each.callback(signal.raise_signal, number)
