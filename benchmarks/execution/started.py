"""Moment at which the command was started: a deadline counts the imports, which take long on a busy machine."""

from __future__ import annotations

import time

_moments: list[float] = []


def note() -> None:
    """Note that the command starts now."""
    _moments.append(time.monotonic())


def seconds_ago() -> float:
    """Return the seconds since the command was started; 0 for a call from Python."""
    return time.monotonic() - _moments[0] if _moments else 0.0
