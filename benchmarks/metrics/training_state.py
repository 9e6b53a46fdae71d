"""Bytes that training holds besides activations: weights, gradients of what trains, and the optimizer's state.

Counted from the tensors themselves, so it is the same on every device, and tells what a method saves where the resident
memory of a small process on a CPU cannot.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from results.record import Metric


def training_bytes(model: nn.Module, optimizer: Any) -> int:
    """Bytes of all weights, of a gradient for each that trains, and of all tensors of the optimizer's state."""
    weights = sum(_bytes(parameter) for parameter in model.parameters())
    gradients = sum(_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad)
    return weights + gradients + optimizer_bytes(optimizer)


def optimizer_bytes(optimizer: Any) -> int:
    """Bytes of all tensors of an optimizer's state but its step counters."""
    return sum(
        _bytes(value)
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.ndim > 0
    )


def training_state_metrics(peak: int, final: int) -> dict[str, Metric]:
    """The most that a run held, and what it held at its last step."""
    return {
        "training_bytes_peak": Metric(float(peak), "bytes", False),
        "training_bytes": Metric(float(final), "bytes", False),
    }


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
