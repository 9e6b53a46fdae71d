"""Shared parts of the micro-benchmarks: models of about ten million parameters, and interleaved clocks.

The clock is the processor time of this process: on a machine that does other work, too, it says how much was computed
and not how long it had to wait. With more than one thread (OMP_NUM_THREADS) it is the time of all of them together.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn

from baselines.calibration import batch_loss
from benchmarks.models import synthetic
from benchmarks.specs.synthetic import ModelShape

BATCH, SEQUENCE, VOCABULARY = 4, 128, 4096
WARM_UP = 2


def _shape(kind: str) -> ModelShape:
    """Six blocks; LLaMA with two query heads per key/value head. No dropout: no fused kernel of the CPU draws it."""
    name, hidden = ("llama_grouped", 1024) if kind == "llama" else (kind, None)
    return ModelShape(name, 6, 384, 6, 32 if kind == "vit" else SEQUENCE, VOCABULARY, hidden)


def _builder(kind: str) -> Callable[[], nn.Module]:
    return lambda: synthetic.build(_shape(kind))


MODELS: dict[str, Callable[[], nn.Module]] = {kind: _builder(kind) for kind in ("gpt2", "llama", "bert", "vit")}


def positions(kind: str) -> int:
    """Positions of one example inside a model."""
    return 65 if kind == "vit" else SEQUENCE


def batch(kind: str) -> dict[str, torch.Tensor]:
    """Random tokens or images with labels; as many images as make about as many positions."""
    return synthetic.random_batch(_shape(kind), examples(kind), SEQUENCE, torch.Generator().manual_seed(0))


def examples(kind: str) -> int:
    """Examples of a batch."""
    return 2 * BATCH if kind == "vit" else BATCH


def training(kind: str, model: nn.Module) -> tuple[torch.optim.Optimizer, Callable[[], None]]:
    """An optimizer, and one training step of the model with it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    given = batch(kind)

    def step() -> None:
        model.train()
        batch_loss(model, given).backward()
        optimizer.step()
        optimizer.zero_grad()

    return optimizer, step


def forward(kind: str, model: nn.Module) -> Callable[[], None]:
    """One forward pass of the model in evaluation mode."""
    given = {name: value for name, value in batch(kind).items() if name != "labels"}

    @torch.no_grad()
    def run() -> None:
        model.eval()
        model(*given.values())

    return run


def interleaved(
    benchmark, actions: Mapping[str, Callable[[], object]], rounds: int = 9, before: Callable[[], object] | None = None
) -> dict[str, list[float]]:
    """Seconds of every action in every counted round; the actions take turns, so that they meet the same machine.

    Args:
        benchmark: of pytest-benchmark.
        actions: what is timed, in this order in every round.
        rounds: that count; two more come first.
        before: prepares a round, untimed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}

    def one_round() -> None:
        if before is not None:
            before()
        for name, action in actions.items():
            start = time.process_time()
            action()
            seconds[name].append(time.process_time() - start)

    benchmark.pedantic(one_round, rounds=rounds, warmup_rounds=WARM_UP, iterations=1)
    counted = {name: values[WARM_UP:] for name, values in seconds.items()}
    benchmark.extra_info.update({f"{name}_seconds": statistics.median(values) for name, values in counted.items()})
    return counted
