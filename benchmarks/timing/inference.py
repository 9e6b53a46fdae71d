"""Modes of inference: as it is, with merged projections, from a static cache, or compiled.

Decode by a small model, or on a fast device, takes as long as its operations take to be launched, whatever the model's
size. A compiled step from a static cache, replayed as one CUDA graph on a GPU, leaves what the device itself needs.
Dense and compressed models are given the same mode, so that their ratio says what compressing brings in it.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.specs.synthetic import InferenceMode, SpeedProtocol
from benchmarks.timing import compilation as compiled_steps

Inputs = dict[str, Tensor]


def _nothing(turn: int) -> None:
    pass


@dataclass(frozen=True)
class Timed:
    """Piece of work in an interleaved timing.

    Attributes:
        work: timed part, called with the number of the turn; a decode returns its tokens.
        ready: called before the clock starts.
        compile_seconds: until what was compiled has come to its first result.
    """

    work: Callable[[int], Tensor | None]
    ready: Callable[[int], None] = _nothing
    compile_seconds: float = 0.0


def prefill(model: nn.Module, batches: Sequence[Inputs], mode: InferenceMode) -> Timed:
    """One forward pass over a batch."""
    model.eval()
    compiled = mode == "compiled"
    forward: Any = torch.compile(model, backend=compiled_steps.BACKEND, dynamic=False) if compiled else model

    @torch.inference_mode()
    def forward_pass(turn: int) -> None:
        forward(**batches[turn])

    if not compiled:
        return Timed(forward_pass)
    device = next(model.parameters()).device.type
    return Timed(forward_pass, compile_seconds=compiled_steps.first_seconds(lambda: forward_pass(0), device))


def decode(model: nn.Module, batches: Sequence[Inputs], protocol: SpeedProtocol, mode: InferenceMode) -> Timed:
    """Tokens one after the other, each from the keys and values of all before it; the prefill is not timed.

    The likeliest token follows; which one it is costs nothing, but it has to be waited for.
    """
    model.eval()
    if mode in ("static", "compiled"):
        return _static_decode(model, batches, protocol, mode == "compiled")
    step = _step(model)
    held: list[tuple[Any, Tensor]] = []

    def ready(turn: int) -> None:
        held[:] = [prefill_cache(model, batches[turn])]  # a cache grows while it is written to: one for each turn

    @torch.inference_mode()
    def generate(turn: int) -> Tensor:
        past, token = held.pop()
        return _tokens(step, token, past, protocol.generated)

    return Timed(generate, ready)


def _static_decode(model: Any, batches: Sequence[Inputs], protocol: SpeedProtocol, compiled: bool) -> Timed:
    """One cache for all turns, because code is compiled for its place in memory; it is filled before each.

    transformers' StaticCache allocates every layer when it sees the layer's first keys and values, so layers may differ
    in heads and widths. Tensors are ordinary ones, not those of inference mode: a CUDA graph writes into them later.
    """
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=protocol.sequence + protocol.generated)
    step = _step(model)
    if compiled:
        step = compiled_steps.compiled_step(step, next(model.parameters()).device.type)
    tokens: list[Tensor] = []

    def ready(turn: int) -> None:
        cache.reset()
        tokens[:] = [prefill_cache(model, batches[turn], cache)[1]]

    @torch.no_grad()
    def generate(turn: int) -> Tensor:
        return _tokens(step, tokens[0], cache, protocol.generated)

    seconds = _compile(step, ready, tokens, cache) if compiled else 0.0
    return Timed(generate, ready, seconds)


@torch.no_grad()
def _compile(step: Callable[..., Tensor], ready: Callable[[int], None], tokens: list[Tensor], cache: Any) -> float:
    """Seconds until the first token; the second comes from a token of the compiled step itself, as all others."""
    ready(0)
    began = time.perf_counter()
    token = step(tokens[0], cache)
    int(token.sum())
    seconds = time.perf_counter() - began
    step(token, cache)
    return seconds


def _tokens(step: Callable[[Tensor, Any], Tensor], token: Tensor, cache: Any, count: int) -> Tensor:
    """Greedy tokens, (batch, count), that follow `token`."""
    written = []
    for _ in range(count):
        token = step(token, cache)
        written.append(token)
    return torch.cat(written, dim=1)


def _step(model: nn.Module) -> Callable[[Tensor, Any], Tensor]:
    name = _cache_name(model)

    def step(token: Tensor, past: Any) -> Tensor:
        result: Any = model(input_ids=token, use_cache=True, **{name: past})
        following: Tensor = result.logits[:, -1:].argmax(-1)
        return following

    return step


@torch.no_grad()
def prefill_cache(model: nn.Module, batch: Inputs, cache: Any = None) -> tuple[Any, Tensor]:
    """Fill a cache with a batch; return it, and the token that follows."""
    held = {} if cache is None else {_cache_name(model): cache}
    result: Any = model(**batch, **held, use_cache=True)
    return result.past_key_values, result.logits[:, -1:].argmax(-1)


def _cache_name(model: nn.Module) -> str:
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # from 5.24 on
