"""`python -m benchmarks`: the command line of cli.py, and what Ctrl-C does to it from its first moment on.

Nothing heavy is imported before the handler is there, so that an interrupt of the first second is no traceback.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from benchmarks.execution import started
from benchmarks.execution.interrupts import INTERRUPTED, MESSAGE, leave_at_once


def main(arguments: Sequence[str] | None = None) -> int:
    """Obey one command.

    Returns:
        0, or 1 when a run failed or could not be made, 2 for a wrong argument, 130 after an interrupt.
    """
    try:
        from benchmarks import cli

        return cli.obey(arguments)
    except KeyboardInterrupt as error:
        print(f"{MESSAGE} ({error})" if str(error) else MESSAGE)
        return INTERRUPTED


if __name__ == "__main__":
    signal.signal(signal.SIGINT, leave_at_once)
    started.note()
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would only disturb the runs that are leaving
    sys.exit(code)
