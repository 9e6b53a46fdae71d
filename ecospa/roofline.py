"""Expected time of a training step: each of its operations, traced on the meta device, against a machine's rates.

seconds = sum over operations of max(FLOPs / (share * FLOP rate), bytes / bandwidth) + launches * launch time

The share is what a matrix product reaches of the rate at the alignment of its rows. It is a bound with efficiencies,
not a simulation: ratios are good, absolute times rough.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ecospa.config import ConfigError
from ecospa.trace import ALIGNED, StepTrace


@dataclass(frozen=True)
class Device:
    """Rates of a machine.

    Attributes:
        name: of the machine.
        arithmetic: FLOPs per second that large matrix products reach.
        bandwidth: bytes per second that copies reach, reads and writes together.
        launch: seconds that an operation takes at least.
        state_accesses: how often an optimizer step reads or writes each parameter, gradient and state tensor entry.
        alignment_shares: (alignment in bytes, share of `arithmetic` that matrix products reach at it), the finest
            alignment first; empty where rows may start anywhere at no cost.
    """

    name: str
    arithmetic: float
    bandwidth: float
    launch: float = 0.0
    state_accesses: int = 7
    alignment_shares: tuple[tuple[int, float], ...] = ()

    def share(self, alignment: int) -> float:
        """Share of `arithmetic` that a matrix product reaches.

        Args:
            alignment: of its rows, in bytes.
        """
        return next((share for least, share in reversed(self.alignment_shares) if least <= alignment), 1.0)


# Peaks of the vendors' data sheets: FLOP/s of bf16 matrix units (dense, fp32 sums) and of fp32 without them, bytes/s.
# What kernels reach of them is usually 60 to 80 %.
_REACHED = 0.7
_LAUNCH = 4e-6
_PEAKS = {
    "a100": ("NVIDIA A100 80GB SXM", 312e12, 19.5e12, 2.039e12),
    "h100": ("NVIDIA H100 80GB SXM", 989e12, 67e12, 3.35e12),
    "h200": ("NVIDIA H200 141GB SXM", 989e12, 67e12, 4.8e12),
    "rtx4090": ("NVIDIA GeForce RTX 4090", 165e12, 82.6e12, 1.008e12),
}
_HOPPER = ((2, 0.18), (4, 0.32), (8, 0.57), (16, 1.0))
"""Shares by alignment. 2 bytes: between what fits a training step (0.195) and a prefill (0.174) of a LLaMA 5461 wide on
an H100; 4 and 8 lie between on a logarithmic scale and are not measured; from 16 on rows can be read as tiles."""
_ALIGNMENT_SHARES = {"h100": _HOPPER, "h200": _HOPPER}
"""Of machines where alignment was measured; of others nothing is said. `measure_device("cuda")` measures it."""
DEVICES = tuple(_PEAKS)
"""Machines whose data sheet is known; others are measured."""
_TRIALS = 10
_LAUNCHES = 64  # one after another, as in a step: a device works on while the next is on its way


def known_device(name: str, dtype: torch.dtype) -> Device:
    """Rates of a machine of `DEVICES` by its data sheet, for matrix products in a dtype.

    Raises:
        ConfigError: the machine is not known.
    """
    if name not in _PEAKS:
        raise ConfigError(f"device is {name!r}; choose one of {', '.join(DEVICES)}, cpu, cuda or none")
    full, half_precision, single_precision, bandwidth = _PEAKS[name]
    arithmetic = single_precision if dtype == torch.float32 else half_precision
    shares = _ALIGNMENT_SHARES.get(name, ()) if dtype != torch.float32 else ()
    return Device(full, _REACHED * arithmetic, _REACHED * bandwidth, _LAUNCH, alignment_shares=shares)


def step_seconds(trace: StepTrace, device: Device, passes: int = 1) -> float:
    """Expected time of an optimizer step that adds up the gradients of several passes.

    Args:
        trace: of one pass.
        device: rates of the machine.
        passes: forward and backward passes per optimizer step.
    """
    traced = sum(
        max(flops / (device.arithmetic * device.share(alignment)), size / device.bandwidth)
        for flops, size, alignment in trace.operations
    )
    update = device.state_accesses * trace.trained * trace.entry_bytes / device.bandwidth
    return passes * (traced + len(trace.operations) * device.launch) + update


def measure_device(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Device:
    """Rates of this machine: a matrix product and a copy, each the best of several; takes about a second.

    On a GPU also the product at every alignment of its rows; a processor's library copies matrices into tiles first.

    Args:
        device: "cpu" or "cuda".
        dtype: of the matrix product.
    """
    side = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    large = torch.zeros(side * side * (16 if device == "cpu" else 4), device=device)
    target = torch.empty_like(large)
    tiny = torch.zeros(8, device=device)
    arithmetic = 2 * side**3 / _best_seconds(lambda: a @ b, device)
    return Device(
        name=f"{device}, measured",
        arithmetic=arithmetic,
        bandwidth=2 * large.numel() * large.element_size() / _best_seconds(lambda: target.copy_(large), device),
        launch=_best_seconds(lambda: [tiny.add_(1) for _ in range(_LAUNCHES)], device) / _LAUNCHES,
        alignment_shares=alignment_shares(side, device, dtype, arithmetic) if device.startswith("cuda") else (),
    )


def alignment_shares(side: int, device: str, dtype: torch.dtype, arithmetic: float) -> tuple[tuple[int, float], ...]:
    """Measure what matrix products reach by the alignment of their rows, for `Device.alignment_shares`.

    Two products at every alignment, of about side x side x side: one writes rows of that distance, one reads them.

    Args:
        side: of the matrices, a multiple of ALIGNED.
        device: where.
        dtype: of the matrices.
        arithmetic: FLOPs per second of the aligned product.

    Returns:
        (bytes, share), from the size of one number to ALIGNED; shares are at most 1 and never fall.
    """
    left = torch.randn(side, side, device=device).to(dtype)
    size, found, most = left.element_size(), [], 0.0
    for exponent in range(size.bit_length() - 1, ALIGNED.bit_length()):
        width = side - 2**exponent // size
        right = torch.randn(side, width, device=device).to(dtype)
        wide = left @ right
        seconds = _best_seconds(lambda: left @ right, device) + _best_seconds(lambda: wide @ right.T, device)  # noqa: B023
        most = max(most, min(1.0, 4 * side * side * width / seconds / arithmetic))
        found.append((2**exponent, most))
    return tuple(found)


def finish_work(device: str) -> None:
    """Wait until a device has done what it was given; a processor has."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _best_seconds(work: Callable[[], object], device: str) -> float:
    best = float("inf")
    for _ in range(_TRIALS):
        began = time.perf_counter()
        work()
        finish_work(device)
        best = min(best, time.perf_counter() - began)
    return best
