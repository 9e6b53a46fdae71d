"""Energy of a piece of work, where the machine counts it: RAPL of Intel and AMD processors, NVML of NVIDIA's GPUs.

Counters move every few milliseconds (RAPL) up to a tenth of a second (NVML), so turns are too short for them: the work
is repeated for a while, one kind after the other. A processor's counter holds all of its cores, whoever uses them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch

from ecospa.roofline import finish_work
from results.record import Metric

Counter = Callable[[], float]

_POWERCAP = Path("/sys/class/powercap")
_ENOUGH = 2.0  # seconds of work per measurement: twenty times the slowest counter's period
_MICRO, _MILLI = 1e-6, 1e-3


def energy_metrics(
    dense: Callable[[int], object],
    shrunk: Callable[[int], object],
    inputs: int,
    device: str,
    counter: Counter | None = None,
) -> dict[str, Metric]:
    """Joules per call of a shrunk and a dense model's step, and their ratio; empty where the machine has no counter.

    Args:
        dense, shrunk: the work measured; each is called with the number of an input, over and over.
        inputs: how many inputs there are.
        device: "cpu" or "cuda".
        counter: joules since some moment; the machine's own by default.
    """
    counter = counter or energy_counter(device)
    if counter is None:
        return {}
    joules, calls = _per_call(shrunk, inputs, device, counter)
    dense_joules, dense_calls = _per_call(dense, inputs, device, counter)
    return {
        "energy": Metric(joules, "J", False, n=calls),
        "dense_energy": Metric(dense_joules, "J", False, n=dense_calls),
        "energy_ratio": Metric(joules / dense_joules, "shrunk / dense", False),
    }


def _per_call(step: Callable[[int], object], inputs: int, device: str, counter: Counter) -> tuple[float, int]:
    began, before = time.perf_counter(), counter()
    for calls in count(1):
        step(calls % inputs)
        finish_work(device)
        if time.perf_counter() - began >= _ENOUGH:
            break
    return (counter() - before) / calls, calls


def energy_counter(device: str, powercap: Path = _POWERCAP) -> Counter | None:
    """Joules that a device has used since some moment; None where it does not tell, or not to this user."""
    return _gpu_counter() if device.startswith("cuda") else _processor_counter(powercap)


def _processor_counter(powercap: Path) -> Counter | None:
    """The packages of all sockets; their counters start again at a maximum."""
    packages = sorted(powercap.glob("intel-rapl:[0-9]")) if powercap.is_dir() else []
    try:
        limits = [int((package / "max_energy_range_uj").read_text()) for package in packages]
        last = [_microjoules(package) for package in packages]
    except OSError:  # kernels let root alone read them
        return None
    if not packages:
        return None
    total = 0

    def joules() -> float:
        nonlocal total
        for place, (package, limit) in enumerate(zip(packages, limits, strict=True)):
            now = _microjoules(package)
            total += (now - last[place]) % (limit + 1)
            last[place] = now
        return total * _MICRO

    return joules


def _microjoules(package: Path) -> int:
    return int((package / "energy_uj").read_text())


def _gpu_counter() -> Counter | None:
    try:
        import pynvml
    except ModuleNotFoundError:  # a machine may have torch and not the suite's other packages
        return None
    try:
        pynvml.nvmlInit()
        # by its name on the bus: NVML numbers devices that CUDA_VISIBLE_DEVICES hides
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:  # older than Volta, or a virtual machine that hides it
        return None
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * _MILLI
