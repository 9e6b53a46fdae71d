"""The most memory that a piece of work holds at once, by the allocator's own account: exact, of tensors alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

Result = TypeVar("Result")


def allocated(work: Callable[[], Result], device: str = "cpu") -> tuple[Result, int]:
    """Return the result of some work, and the most bytes allocated during it beyond those that were before.

    Args:
        work: called once.
        device: whose memory is meant, "cpu" or "cuda"; tensors are counted, not the process.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = work()
        torch.cuda.synchronize()
        return result, torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or every call says on stderr that there is no GPU
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as observed:
        result = work()
    events = [event for event in observed.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return result, max(accumulate(changes), default=0)
