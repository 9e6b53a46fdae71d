"""A fresh process for every run, so that peak memory is the run's own and a crash ends one run, not the suite.

Runs on the CPU are forked from a server that has imported everything once; runs on a GPU start from nothing, because a
CUDA context does not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

from benchmarks.execution.recording import failed
from benchmarks.experiment import Run, RunContext, ignore_progress
from results.record import RunRecord

_ALIVE_SECONDS = 0.5
_LEAVE_SECONDS = 5.0
_ON_CPU = ("smoke", "cpu")

Report = Callable[[int, int], None]


def run_in_subprocess(run: Run, run_context: RunContext, origin: tuple[str, bool]) -> RunRecord:
    """Carry out a run in a process of its own; a process that dies becomes a failed record.

    Args:
        run: what to execute.
        run_context: its `progress` is called here at least twice a second; what it raises ends the run.
        origin: commit and whether the checkout differs from it.

    Raises:
        KeyboardInterrupt: passed on once the process has ended.
    """
    # Threads that wait without spinning: beside other programs a step is several times faster. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    began = datetime.now(UTC)
    context = _context(run.cell.tier)
    here, there = context.Pipe(duplex=False)
    quiet = replace(run_context, progress=ignore_progress)
    process = context.Process(target=_enter, args=(there, run, quiet, origin), daemon=True)
    try:
        _start(process, run_context.progress)
        there.close()
        text = _listen(here, run_context.progress)
        process.join()
    finally:
        if process.pid is not None and process.is_alive():
            process.terminate()
            process.join(_LEAVE_SECONDS)
            process.kill()
            process.join()
        here.close()
    if text is None:
        code = process.exitcode
        why = " (out of memory?)" if code == -signal.SIGKILL else ""
        message = f"the process of the run ended with exit code {code} without a result{why}"
        return failed(run, run_context, origin, began, message)
    return RunRecord.from_json(text)


def _start(process: BaseProcess, progress: Report) -> None:
    """Start a process, and report meanwhile: the first of a server waits for all of its imports.

    A thread of its own starts it, which ends with this process if the report raises before it is done.
    """
    raised: list[BaseException] = []

    def start() -> None:
        try:
            with _deaf():
                process.start()
        except BaseException as error:  # raised where the run was asked for
            raised.append(error)

    starter = threading.Thread(target=start, daemon=True)
    starter.start()
    while starter.is_alive():
        starter.join(_ALIVE_SECONDS)
        progress(0, 1)
    if raised:
        raise raised[0]


@contextmanager
def _deaf() -> Iterator[None]:
    """Let a process begin with Ctrl-C blocked: this process decides what it means, and imports take seconds."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _enter(connection: Connection, run: Run, run_context: RunContext, origin: tuple[str, bool]) -> None:
    from benchmarks.execution.worker import work  # only here: the parent plans without importing torch

    work(connection, run, run_context, origin)


def _listen(connection: Connection, progress: Report) -> str | None:
    """Pass on what the process says until it sends its record; None if it ends without one.

    A silent process is reported as it last was: a report is also where an interrupted call ends its runs.
    """
    content = (0, 1)
    while True:
        try:
            if not connection.poll(_ALIVE_SECONDS):
                progress(*content)
                continue
            kind, content = connection.recv()
        except EOFError:
            return None
        if kind == "record":
            return str(content)
        progress(*content)


def _context(tier: str) -> ForkServerContext | SpawnContext:
    if tier not in _ON_CPU or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.execution.worker"])
    return context
