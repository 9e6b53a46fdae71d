"""How long a training step should take: each of its operations, traced on the meta device, against a machine's rates.

seconds = sum over operations of max(operations / arithmetic rate, bytes / bandwidth) + launches * launch time

Traced shapes are those of the model as it is, so a cut model is compared with the whole one operation by operation. No
memory is needed. It is a bound with efficiencies, not a simulation: ratios are good, absolute times rough.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ecospa.config import ConfigError


@dataclass(frozen=True)
class Device:
    """Rates of a machine.

    Attributes:
        name: of the machine.
        arithmetic: floating-point operations per second that large matrix products reach.
        bandwidth: bytes per second that copies reach, reads and writes together.
        launch: seconds that an operation takes at least.
        state_accesses: how often an optimizer step reads or writes each parameter, gradient and state tensor entry.
    """

    name: str
    arithmetic: float
    bandwidth: float
    launch: float = 0.0
    state_accesses: int = 7


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
DEVICES = tuple(_PEAKS)
"""Machines whose data sheet is known; others are measured."""
_TRIALS = 10


def known_device(name: str, dtype: torch.dtype) -> Device:
    """Rates of a machine of `DEVICES` by its data sheet, for matrix products in a dtype.

    Raises:
        ConfigError: the machine is not known.
    """
    if name not in _PEAKS:
        raise ConfigError(f"device is {name!r}; choose one of {', '.join(DEVICES)}, cpu, cuda or none")
    full, half_precision, single_precision, bandwidth = _PEAKS[name]
    arithmetic = single_precision if dtype == torch.float32 else half_precision
    return Device(full, _REACHED * arithmetic, _REACHED * bandwidth, _LAUNCH)


@dataclass(frozen=True)
class StepTrace:
    """One training step.

    Attributes:
        operations: (floating-point operations, bytes read and written) of everything that touches memory.
        saved: bytes that the forward pass keeps for the backward pass, parameters not counted.
        trained: entries that the optimizer updates.
        entry_bytes: bytes of one of them.
    """

    operations: tuple[tuple[int, int], ...]
    saved: int
    trained: int
    entry_bytes: int

    @property
    def flops(self) -> int:
        """Operations of all matrix products of the step."""
        return sum(flops for flops, _ in self.operations)

    def seconds(self, device: Device, passes: int = 1) -> float:
        """Expected time on a machine of an optimizer step that adds up the gradients of several passes."""
        traced = sum(max(flops / device.arithmetic, size / device.bandwidth) for flops, size in self.operations)
        update = device.state_accesses * self.trained * self.entry_bytes / device.bandwidth
        return passes * (traced + len(self.operations) * device.launch) + update


def weightless(model: nn.Module) -> nn.Module:
    """A copy on the meta device: it needs no memory, and shared parameters stay shared (Module.to would part them)."""
    twins: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    twins |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    return copy.deepcopy(model, twins)


def trace_step(model: nn.Module, batch: Mapping[str, Tensor]) -> StepTrace:
    """Trace forward, loss and backward.

    Args:
        model: on the meta device, in training mode if dropout is to count; nothing of it is changed.
        batch: inputs and labels on the meta device; the model returns a loss for it.

    Returns:
        Its operations. Attention counts as a fused kernel does: score matrices cost arithmetic and no memory.

    Raises:
        ConfigError: the model is not on the meta device.
    """
    if any(not parameter.is_meta for parameter in model.parameters()):
        raise ConfigError("model holds real weights; trace ecospa.roofline.weightless(model)")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sequence = max((value.shape[1] for value in batch.values() if value.ndim == 2), default=0)
    kept = _Kept({_storage(parameter) for parameter in model.parameters()}, sequence)
    meter = _Meter(sequence)
    hooks = torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor)
    with _without_padding(model), meter, hooks:
        loss = model(**batch).loss
        torch.autograd.grad(loss, trained, allow_unused=True)
    entries = sum(parameter.numel() for parameter in trained)
    return StepTrace(tuple(meter.operations), kept.bytes, entries, trained[0].element_size() if trained else 0)


def measure_device(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Device:
    """Rates of this machine: a matrix product and a copy, each the best of several; takes about a second.

    Args:
        device: "cpu" or "cuda".
        dtype: of the matrix product.
    """
    side = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    large = torch.zeros(side * side * (16 if device == "cpu" else 4), device=device)
    target = torch.empty_like(large)
    tiny = torch.zeros(8, device=device)
    return Device(
        name=f"{device}, measured",
        arithmetic=2 * side**3 / _best_seconds(lambda: a @ b, device),
        bandwidth=2 * large.numel() * large.element_size() / _best_seconds(lambda: target.copy_(large), device),
        launch=_best_seconds(lambda: tiny.add_(1), device),
    )


def _best_seconds(work: Callable[[], object], device: str) -> float:
    best = float("inf")
    for _ in range(_TRIALS):
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


@contextmanager
def _without_padding(model: nn.Module) -> Iterator[None]:
    """Without a padding token, which transformers would look for in tokens that have no values."""
    config: Any = getattr(model, "config", None)
    token = getattr(config, "pad_token_id", None)
    if token is not None:
        config.pad_token_id = None
    try:
        yield
    finally:
        if token is not None:
            config.pad_token_id = token


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes arithmetic and bytes of every operation that is more than another view of a tensor."""

    def __init__(self, sequence: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sequence = sequence
        self.operations: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns):
            return result
        count = flop_registry.get(func.overloadpacket)
        flops = 0 if count is None else int(count(*args, **kwargs, out_val=result))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors if not _scores(tensor, self.sequence))
        self.operations.append((flops, size))
        return result


class _Kept:
    """Adds up what is saved for the backward pass, every storage once, without parameters and score matrices."""

    def __init__(self, parameters: set[int], sequence: int) -> None:
        self.sequence = sequence
        self._seen = set(parameters)
        self._alive: list[Tensor] = []  # a storage that is freed could lend its number to another
        self.bytes = 0

    def pack(self, tensor: Tensor) -> Tensor:
        """Look at a tensor that is being saved."""
        number = _storage(tensor)
        if number not in self._seen and not _scores(tensor, self.sequence):
            self._seen.add(number)
            self._alive.append(tensor)
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor


def _scores(tensor: Tensor, sequence: int) -> bool:
    """Whether a tensor is an attention's score matrix, or its mask, which fused kernels never write."""
    return tensor.ndim >= 3 and sequence > 1 and tuple(tensor.shape[-2:]) == (sequence, sequence)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
