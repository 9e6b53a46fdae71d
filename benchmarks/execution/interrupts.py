"""Ctrl-C of the command: at once and without a word of Python's while nothing is being made, in order once it is.

Imports and plans take a second or two in which nothing is written and no process runs; an exception raised there comes
out of the middle of an import, as whatever that makes of it.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130
MESSAGE = "interrupted; what is finished is kept, the same command goes on from here"


def leave_at_once(number: int, frame: FrameType | None) -> None:
    """End the process: a handler for the time before anything is made."""
    os.write(2, f"\n{MESSAGE}\n".encode())
    os._exit(INTERRUPTED)


def raise_from_now_on() -> None:
    """Let an interrupt be an exception again, where the command had it end the process."""
    if signal.getsignal(signal.SIGINT) is leave_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
