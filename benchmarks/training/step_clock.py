"""Seconds of training steps and of the gaps between them, without waiting for a GPU after every step.

A GPU runs behind the process that gives it work. To wait for it at every step would leave it idle while the next one is
prepared, and the step that is measured would be slower than the step that a user has. So marks are put among its work,
and read when it has come by.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

import torch

_MILLI = 1e-3


class Taken(NamedTuple):
    """Seconds of a step, and of the gap before it, in which it had to wait for its batch."""

    step: float
    gap: float


class StepClock:
    """Times steps one after the other.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self._mark: type[_HostMark | _DeviceMark] = _DeviceMark if device == "cuda" else _HostMark
        self._begin: _Mark | None = None
        self._last: _Mark | None = None
        self._pending: list[tuple[_Mark | None, _Mark, _Mark]] = []

    def start(self) -> None:
        """Begin a step."""
        self._begin = self._mark()

    def stop(self) -> None:
        """End a step; one that was never begun counts from the end of the last."""
        end = self._mark()
        self._pending.append((self._last, self._begin or self._last or end, end))
        self._begin, self._last = None, end

    def pause(self) -> None:
        """Leave out the gap before the next step: something else than waiting for data fills it."""
        self._last = None

    def finished(self, wait: bool = False) -> list[Taken]:
        """Steps that have finished since the last call, in order.

        Args:
            wait: until all of them have.
        """
        found = []
        while self._pending and (wait or self._pending[0][2].passed()):
            before, begin, end = self._pending.pop(0)
            end.wait()
            found.append(Taken(end.since(begin), 0.0 if before is None else begin.since(before)))
        return found


class _Mark(Protocol):
    def passed(self) -> bool: ...

    def wait(self) -> None: ...

    def since(self, other: Any) -> float: ...


class _HostMark:
    def __init__(self) -> None:
        self.at = time.perf_counter()

    def passed(self) -> bool:
        return True

    def wait(self) -> None:
        pass

    def since(self, other: _HostMark) -> float:
        return self.at - other.at


class _DeviceMark:
    def __init__(self) -> None:
        self.event: Any = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def passed(self) -> bool:
        return bool(self.event.query())

    def wait(self) -> None:
        self.event.synchronize()

    def since(self, other: _DeviceMark) -> float:
        return float(other.event.elapsed_time(self.event)) * _MILLI
