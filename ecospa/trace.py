"""Trace of a training step, operation by operation, on the meta device: FLOPs, bytes moved, bytes held.

Traced shapes are those of the model as it is, so a cut model is compared with the dense one operation by operation, and
no memory is needed.
"""

from __future__ import annotations

import copy
import functools
import math
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ecospa.attention import CoupledAttention
from ecospa.config import ConfigError

ALIGNED = 128
"""Bytes; rows of a matrix that start at multiples of them suit every kernel."""


class Operation(NamedTuple):
    """One operation: its FLOPs, the bytes that it reads and writes, and the alignment of a matrix product in bytes.

    The alignment is the largest power of two, up to ALIGNED, that divides the distance between rows of all operands
    and of the result. A feed-forward layer 5461 wide in bf16 has 2 bytes: its rows start at odd places.
    """

    flops: int
    bytes: int
    alignment: int = ALIGNED


@dataclass(frozen=True)
class StepTrace:
    """One training step.

    Attributes:
        operations: everything that touches memory.
        saved: bytes that the forward pass keeps for the backward pass, parameters not counted.
        transient: most bytes that a pass holds at once besides parameters and their gradients.
        first_transient: the same with the gradients that the pass has made by then: that of a step's first pass, which
            finds none, and whose gradients come while activations go.
        trained: entries that the optimizer updates.
        entry_bytes: bytes of one of them.
    """

    operations: tuple[Operation, ...]
    saved: int
    transient: int
    first_transient: int
    trained: int
    entry_bytes: int

    @property
    def flops(self) -> int:
        """FLOPs of all matrix products of the step."""
        return sum(operation.flops for operation in self.operations)


def weightless(model: nn.Module) -> nn.Module:
    """A copy on the meta device: it needs no memory, and shared parameters stay shared (Module.to would part them)."""
    twins: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    twins |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    twin = copy.deepcopy(model, twins)
    device = next((parameter.device.type for parameter in model.parameters()), "meta")
    if device != "meta":
        stand_for(twin, device)
    return twin


def stand_for(model: nn.Module, device: str) -> None:
    """Let a model without weights behave as on a type of device, whose kernels may want padded widths."""
    for module in model.modules():
        if isinstance(module, CoupledAttention):
            module.traced_for = device


def output_loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """The loss that a model returns: an attribute, an entry or the first element of its output, or the output itself.

    Args:
        model: called with the batch by name.
        batch: inputs and labels.

    Raises:
        ConfigError: there is none.
    """
    result = model(**batch)
    loss = result.get("loss") if isinstance(result, Mapping) else getattr(result, "loss", None)
    if loss is None and not isinstance(result, Mapping):
        loss = result[0] if isinstance(result, tuple) and result else result
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ConfigError(f"model is a {type(model).__name__}, which gives no loss for {', '.join(batch)}")
    return loss


def trace_step(
    model: nn.Module,
    batch: Mapping[str, Any],
    loss: Callable[[nn.Module, Mapping[str, Any]], Tensor] = output_loss,
) -> StepTrace:
    """Trace forward, loss and backward.

    Args:
        model: on the meta device, in training mode if dropout is to count; nothing of it is changed.
        batch: inputs and labels on the meta device; the model returns a loss for it.
        loss: the loss of a model for a batch.

    Returns:
        Its operations. Scaled dot-product attention counts as a fused kernel does: score matrices cost FLOPs and
        no memory; attention that a model writes out is counted as it is.

    Raises:
        ConfigError: the model is not on the meta device, or gives no loss for the batch.
    """
    if any(not parameter.is_meta for parameter in model.parameters()):
        raise ConfigError("model holds real weights; trace ecospa.trace.weightless(model)")
    try:
        with _without_padding(model):
            return _traced(model, batch, loss)
    except ValueError:  # heads that look for the last token want to know how padding looks
        return _traced(model, batch, loss)


def _traced(model: nn.Module, batch: Mapping[str, Any], loss: Callable[..., Tensor]) -> StepTrace:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    own = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    kept, meter = _Kept(own), _Meter(own)
    hooks = torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor)
    with _gradients_let_go(trained, meter), _FusedAttention(meter), meter, hooks:
        loss(model, batch).backward()  # type: ignore[no-untyped-call]
    entries = sum(parameter.numel() for parameter in trained)
    size = trained[0].element_size() if trained else 0
    return StepTrace(tuple(meter.operations), kept.bytes, meter.peak, meter.first_peak, entries, size)


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
def _gradients_let_go(trained: list[nn.Parameter], meter: _Meter) -> Iterator[None]:
    """Every gradient is dropped as soon as it is there, and its bytes are noted apart."""

    def let_go(parameter: Tensor) -> None:
        parameter.grad = None
        meter.note_gradient(parameter)

    hooks = [parameter.register_post_accumulate_grad_hook(let_go) for parameter in trained]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Cost:
    """Cost of an operation on given shapes, and the shape of the tensor that it makes, if it is one."""

    def __init__(self, operation: Operation, made: Tensor | None) -> None:
        self.operation = operation
        self.made = None if made is None else (made.shape, made.stride(), made.dtype)  # no tensor: it would stay alive

    def result(self) -> Tensor:
        """An empty tensor like the one that was made."""
        assert self.made is not None
        size, stride, dtype = self.made
        return torch.empty_strided(size, stride, dtype=dtype, device="meta")


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes FLOPs and bytes of every operation that is more than another view, and the most that is alive."""

    def __init__(self, own: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.peak = self.first_peak = 0
        self._live = self._gradients = 0
        self._known = set(own)
        self._costs: dict[Hashable, _Cost] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            return True  # models ask whether a mask is full and nothing is packed, and there are no values to look at
        if _views(func):
            return func(*args, **kwargs)
        result, cost = self._carried_out(func, args, kwargs)
        if func not in _RESERVING:
            self.operations.append(cost.operation)
        for tensor in _tensors(result):
            self._watch(tensor)
        return result

    def _carried_out(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, _Cost]:
        """The result of an operation and its cost; blocks are alike, so shapes met before are not derived again."""
        key = (func, _shapes(args), _shapes(kwargs)) if _makes_new(func) else None
        if key in self._costs:
            return self._costs[key].result(), self._costs[key]
        result = func(*args, **kwargs)
        count = flop_registry.get(func.overloadpacket)
        flops = 0 if count is None else int(count(*args, **kwargs, out_val=result))
        touched = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        operation = Operation(flops, _bytes(touched), _alignment(touched) if flops else ALIGNED)
        cost = _Cost(operation, result if isinstance(result, Tensor) else None)
        if key is not None and cost.made is not None:
            self._costs[key] = cost
        return result, cost

    def note(self, flops: int, touched: Sequence[Tensor]) -> None:
        """Add an operation that reads or writes these tensors."""
        self.operations.append(Operation(flops, _bytes(touched)))

    def note_gradient(self, parameter: Tensor) -> None:
        """A parameter has its gradient now."""
        self._gradients += parameter.numel() * parameter.element_size()
        self.first_peak = max(self.first_peak, self._live + self._gradients)

    def _watch(self, tensor: Tensor) -> None:
        storage, number = tensor.untyped_storage(), _storage(tensor)
        if number in self._known:
            return
        size = storage.nbytes()
        self._known.add(number)
        self._live += size
        self.peak = max(self.peak, self._live)
        self.first_peak = max(self.first_peak, self._live + self._gradients)
        weakref.finalize(storage, self._free, number, size)

    def _free(self, number: int, size: int) -> None:
        self._known.discard(number)
        self._live -= size


_RESERVING = frozenset(
    {torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default, torch.ops.aten.new_empty.default}
)
"""Operations that touch no memory yet."""


class _FusedAttention(TorchFunctionMode):
    """Scaled dot-product attention as one operation forwards and one backwards, as fused kernels carry it out."""

    def __init__(self, meter: _Meter) -> None:
        super().__init__()
        self.meter = meter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs or {})
        return _Attention.apply(named["query"], named["key"], named["value"], self.meter)


class _Attention(torch.autograd.Function):
    """Shapes, FLOPs and bytes of a fused attention: forwards two products per head, backwards five."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, meter: _Meter) -> Tensor:
        """Return an empty output; keep what the backward pass needs."""
        # (batch, heads, time, width) in memory as (batch, time, heads, width), where a projection reads it as it is
        result = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3]).transpose(1, 2)
        sums = query.new_empty(query.shape[:3], dtype=torch.float32)
        meter.note(_attention_flops(query, key, value, 1, 1), (query, key, value, result))
        ctx.save_for_backward(query, key, value, result, sums)
        ctx.meter = meter
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Return empty gradients of query, key and value."""
        query, key, value, result, _ = ctx.saved_tensors
        found = [torch.empty_like(tensor) for tensor in (query, key, value)]
        touched = (query, key, value, result, gradients[0], *found)
        ctx.meter.note(_attention_flops(query, key, value, 3, 2), touched)
        return (*found, None)


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, scores: int, outputs: int) -> int:
    """FLOPs of so many products over the query/key width, and so many over the value width."""
    batch, heads, time, width = query.shape
    return 2 * batch * heads * time * key.shape[2] * (scores * width + outputs * value.shape[3])


class _Kept:
    """Adds up what is saved for the backward pass, every storage once, without parameters."""

    def __init__(self, parameters: set[int]) -> None:
        self._seen = set(parameters)
        self._alive: list[Tensor] = []  # a storage that is freed could lend its number to another
        self.bytes = 0

    def pack(self, tensor: Tensor) -> Tensor:
        """Look at a tensor that is being saved."""
        number = _storage(tensor)
        if number not in self._seen:
            self._seen.add(number)
            self._alive.append(tensor)
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor


@functools.cache
def _views(func: Any) -> bool:
    """Return whether an operation returns another view of its input."""
    return any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)


@functools.cache
def _makes_new(func: Any) -> bool:
    """Return whether an operation only reads, and returns nothing that was there before."""
    schema = func._schema
    return all(value.alias_info is None for value in (*schema.arguments, *schema.returns))


def _shapes(value: Any) -> Hashable:
    """Everything of arguments that decides the shape of a result; 1, 1.0 and True are three values."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, dict):
        return tuple((name, _shapes(own)) for name, own in value.items())
    if isinstance(value, (tuple, list)):
        return tuple(_shapes(own) for own in value)
    return type(value), value


def _tensors(result: Any) -> list[Tensor]:
    return (
        [result] if isinstance(result, Tensor) else [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    )


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _alignment(tensors: Sequence[Tensor]) -> int:
    """Largest power of two, up to ALIGNED bytes, that divides the distance between rows of all matrices."""
    found = ALIGNED
    for tensor in tensors:
        if tensor.ndim >= 2:
            for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
                if size > 1 and stride > 1:
                    found = math.gcd(found, stride * tensor.element_size())
    return found


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
