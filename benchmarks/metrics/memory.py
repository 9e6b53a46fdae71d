"""Peak memory of a run: resident memory of its process, or memory allocated on the GPU.

On a CPU the number holds the interpreter and the libraries too (some hundreds of MB, the same for every method) and is
only meaningful because every run has a process of its own. The first run that needs a cache also makes it, which can
take more memory than any training: `reset_peak` ends that part.
"""

from __future__ import annotations

import gc
import re
import resource
import sys
from pathlib import Path

import torch

from results.record import Metric

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_FORGET_PEAK = "5"  # proc(5): the peak of resident memory becomes the present one


def reset_peak(device: str) -> None:
    """Let `peak_memory` forget what came before. On a CPU only Linux can; elsewhere the peak stays that of the process.

    Args:
        device: "cpu" or "cuda".
    """
    gc.collect()  # what preparations have left in cycles would still be counted
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text(_FORGET_PEAK)


def peak_memory(device: str) -> int:
    """Highest memory of this process since `reset_peak`, or since its start, in bytes."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    high_water_mark = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
    if high_water_mark is not None:
        return int(high_water_mark[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # Linux counts in kibibytes


def memory_metrics(peak: int) -> dict[str, Metric]:
    """Highest memory in bytes."""
    return {"peak_memory": Metric(float(peak), "bytes", False)}
