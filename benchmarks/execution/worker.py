"""The process that carries out one run: a crash or a memory peak of one run is then no other run's.

The heavy imports stand at the top, so that a fork server pays for them once; every run is a fork of that clean process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

import timm  # noqa: F401  second to torch and transformers what runs on images wait for
import torch

import baselines

# imports torch, transformers, ecospa and what most runs need before the first fork
import benchmarks.procedures.compression
import benchmarks.procedures.pruning_cost
import benchmarks.procedures.training  # noqa: F401
from benchmarks import metrics, registry
from benchmarks.execution import provenance
from benchmarks.execution.recording import Ended, carry_out
from benchmarks.experiment import Run, RunContext

baselines.methods()
metrics.measures()
provenance.code_digest()
registry.experiments()  # read once: a file that is edited during a long call changes none of its runs


def work(connection: Connection, run: Run, context: RunContext, origin: tuple[str, bool]) -> None:
    """Carry out a run; send ("progress", (done, total)) on the way and ("record", JSON) at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means and ends this process
    signal.signal(signal.SIGTERM, _leave)
    # Adam's moments of masked weights fade into numbers below 1e-38, on which processors are several times slower: a
    # step with masks would look as if masking itself cost three times as much
    torch.set_flush_denormal(True)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    reporting = replace(context, progress=lambda done, total: connection.send(("progress", (done, total))))
    record = carry_out(run, reporting, origin)
    connection.send(("record", record.to_json()))
    connection.close()


def _end_with(parent: Any) -> None:
    """End when the process that asked for the run is killed: the next call goes on in the same folder."""
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _leave(number: int, frame: FrameType | None) -> None:
    """End in an orderly way, so that nothing shared with other processes is left behind."""
    raise Ended(128 + number)
