"""Compiling inside a measurement: nothing is kept from earlier runs, and nothing is compiled while the clock runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

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
