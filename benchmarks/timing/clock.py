"""Clock of the device while it is measured: a machine that was throttled explains a number that does not repeat."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_PROCESSORS = Path("/proc/cpuinfo")


def clock(device: str, processors: Path = _PROCESSORS) -> float | None:
    """Megahertz of the fastest core, or of the GPU's multiprocessors, now; None where the system does not tell."""
    if device.startswith("cuda"):
        try:
            return float(torch.cuda.clock_rate())
        except (ModuleNotFoundError, RuntimeError):  # NVML is no part of torch, and some virtual machines hide it
            return None
    text = processors.read_text() if processors.exists() else ""
    readings = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE)
    return max(map(float, readings), default=None)
