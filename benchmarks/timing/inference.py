"""Modes of inference: as it is, with merged projections, from a static cache, or compiled.

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
        work: timed part, called with the number of the turn; a decode returns its last token.
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
    pasts = [prefill_cache(model, batch) for batch in batches]

    @torch.inference_mode()
    def generate(turn: int) -> Tensor:
        past, token = pasts[turn]
        pasts[turn] = (None, token)  # a cache grows while it is written to: each serves one turn
        for _ in range(protocol.generated):
            token = step(token, past)
        return token

    return Timed(generate)


def _static_decode(model: Any, batches: Sequence[Inputs], protocol: SpeedProtocol, compiled: bool) -> Timed:
    """One cache for all turns, because code is compiled for its place in memory; it is filled before each."""
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=protocol.sequence + protocol.generated)
    step = _step(model)
    if compiled:
        step = torch.compile(step, backend=compiled_steps.BACKEND, fullgraph=True, dynamic=False)
    tokens: list[Tensor] = []

    @torch.inference_mode()
    def ready(turn: int) -> None:
        cache.reset()
        tokens[:] = [prefill_cache(model, batches[turn], cache)[1]]

    @torch.inference_mode()
    def generate(turn: int) -> Tensor:
        (token,) = tokens
        for _ in range(protocol.generated):
            token = step(token, cache)
        return token

    seconds = _compile(step, ready, tokens, cache) if compiled else 0.0
    return Timed(generate, ready, seconds)


@torch.inference_mode()
def _compile(step: Callable[..., Tensor], ready: Callable[[int], None], tokens: list[Tensor], cache: Any) -> float:
    """Seconds until the first token; the second comes from a token of the compiled step itself, as all others."""
    ready(0)
    began = time.perf_counter()
    token = step(tokens[0], cache)
    int(token.sum())
    seconds = time.perf_counter() - began
    step(token, cache)
    return seconds


def _step(model: nn.Module) -> Callable[[Tensor, Any], Tensor]:
    name = _cache_name(model)

    def step(token: Tensor, past: Any) -> Tensor:
        result: Any = model(input_ids=token, use_cache=True, **{name: past})
        following: Tensor = result.logits[:, -1:].argmax(-1)
        return following

    return step


@torch.inference_mode()
def prefill_cache(model: nn.Module, batch: Inputs, cache: Any = None) -> tuple[Any, Tensor]:
    """Fill a cache with a batch; return it, and the token that follows."""
    held = {} if cache is None else {_cache_name(model): cache}
    result: Any = model(**batch, **held, use_cache=True)
    return result.past_key_values, result.logits[:, -1:].argmax(-1)


def _cache_name(model: nn.Module) -> str:
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # from 5.24 on
