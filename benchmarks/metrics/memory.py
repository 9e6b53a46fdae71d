"""How much memory a run took at its highest: resident memory of its process, or memory allocated on the GPU.

On a CPU the number holds the interpreter and the libraries too (some hundreds of MB, the same for every method) and is
only meaningful because every run has a process of its own.
"""

from __future__ import annotations

import resource
import sys

import torch

from results.record import Metric


def peak_memory(device: str) -> int:
    """Highest memory of this process so far, in bytes."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # Linux counts in kibibytes


def memory_metrics(peak: int) -> dict[str, Metric]:
    """Highest memory in bytes."""
    return {"peak_memory": Metric(float(peak), "bytes", False)}
