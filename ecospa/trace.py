"""What a training step does, operation by operation, found out on the meta device: arithmetic, bytes moved, bytes held.

Traced shapes are those of the model as it is, so a cut model is compared with the whole one operation by operation, and
no memory is needed.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
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
class StepTrace:
    """One training step.

    Attributes:
        operations: (floating-point operations, bytes read and written) of everything that touches memory.
        saved: bytes that the forward pass keeps for the backward pass, parameters not counted.
        transient: most bytes that a pass holds at once beside parameters and their gradients.
        trained: entries that the optimizer updates.
        entry_bytes: bytes of one of them.
    """

    operations: tuple[tuple[int, int], ...]
    saved: int
    transient: int
    trained: int
    entry_bytes: int

    @property
    def flops(self) -> int:
        """Operations of all matrix products of the step."""
        return sum(flops for flops, _ in self.operations)


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
        raise ConfigError("model holds real weights; trace ecospa.trace.weightless(model)")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sequence = max((value.shape[1] for value in batch.values() if value.ndim == 2), default=0)
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept, meter = _Kept(own, sequence), _Meter(own, sequence)
    hooks = torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor)
    with _without_padding(model), _gradients_let_go(trained), meter, hooks:
        model(**batch).loss.backward()
    entries = sum(parameter.numel() for parameter in trained)
    size = trained[0].element_size() if trained else 0
    return StepTrace(tuple(meter.operations), kept.bytes, meter.peak, entries, size)


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


@contextmanager
def _gradients_let_go(trained: list[nn.Parameter]) -> Iterator[None]:
    """Every gradient is dropped as soon as it is there: what holds them all is counted elsewhere."""

    def let_go(parameter: Tensor) -> None:
        parameter.grad = None

    hooks = [parameter.register_post_accumulate_grad_hook(let_go) for parameter in trained]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes arithmetic and bytes of every operation that is more than another view, and the most that is alive."""

    def __init__(self, own: set[int], sequence: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sequence = sequence
        self.operations: list[tuple[int, int]] = []
        self.peak = 0
        self._live = 0
        self._known = set(own)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            return True  # models ask whether a mask is full and nothing is packed, and there are no values to look at
        result = func(*args, **kwargs)
        if any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns):
            return result
        count = flop_registry.get(func.overloadpacket)
        flops = 0 if count is None else int(count(*args, **kwargs, out_val=result))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors if not _scores(tensor, self.sequence))
        self.operations.append((flops, size))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor)
        return result

    def _watch(self, tensor: Tensor) -> None:
        storage, number = tensor.untyped_storage(), _storage(tensor)
        if number in self._known:
            return
        size = 0 if _scores(tensor, self.sequence) else storage.nbytes()
        self._known.add(number)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._free, number, size)

    def _free(self, number: int, size: int) -> None:
        self._known.discard(number)
        self._live -= size


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
