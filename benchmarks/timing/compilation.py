"""Compiling inside a measurement: nothing is kept from earlier runs, and nothing is compiled while the clock runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from ecospa.roofline import finish_work

BACKEND = "inductor"


@contextmanager
def compiling(wanted: bool, threads: int) -> Iterator[None]:
    """Compile with empty caches, so that the seconds of compiling are those of a first time.

    Args:
        wanted: whether anything is compiled; if not, nothing happens.
        threads: of the compiler.
    """
    if not wanted:
        yield
        return
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    torch.compiler.reset()
    with fresh_cache(), config.patch(compile_threads=threads):
        yield
    torch.compiler.reset()


def compiled_step(step: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """Compile a decode step without a graph break; on a GPU it is recorded and replayed as one CUDA graph.

    Args:
        step: returns one tensor; shapes never change, and caches that it writes to stay where they are.
        device: its type; the CPU has no graphs to replay.
    """
    if not device.startswith("cuda"):
        return torch.compile(step, backend=BACKEND, fullgraph=True, dynamic=False)
    recorded = torch.compile(step, backend=BACKEND, mode="reduce-overhead", fullgraph=True, dynamic=False)

    def replayed(*arguments: Any) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return recorded(*arguments).clone()  # the next replay writes its result to the same place

    return replayed


def first_seconds(work: Callable[[], object], device: str) -> float:
    """Seconds of a first call, which compiles what it calls."""
    finish_work(device)
    began = time.perf_counter()
    work()
    finish_work(device)
    return time.perf_counter() - began


def all_compiled() -> AbstractContextManager[None]:
    """Whatever is compiled has been: what would have to be compiled again in here raises."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("fail_on_recompile")
    return stance
