"""Measures of the importance of a pair other than empirical Fisher information, without any schedule.

All are means per entry, so that pairs of different size compare, and all are larger where a pair matters more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from baselines.calibration import Batch, Calibration, outputs
from ecospa import CoupledEstimator, CoupledPair, coupled_pairs
from ecospa.pairs import PairKind, pair_matrices

SEQUENCES_SEEN = 16
"""Calibration sequences or images that activations and attention are measured on at every event."""


class AbsoluteGradient(CoupledEstimator):
    """I(W) = mean over steps of ||dL/dW||_1 / |W|; with squares instead it would be the Fisher information again."""

    def step_sums(self, weights: list[Tensor], gradients: list[Tensor]) -> Tensor:
        """sum_ij |dL/dW_ij| of every matrix."""
        return torch.stack(torch._foreach_norm(gradients, 1)).to(torch.float64)


@torch.no_grad()
def weight_norms(model: nn.Module) -> dict[str, float]:
    """Root mean square of the weights of every pair, the mean over its matrices.

    I(W) = ||W||_F / sqrt(|W|)

    Args:
        model: a model of a supported family.

    Returns:
        Pair name -> value, in the unit of the weights.
    """
    named: dict[str, Tensor] = dict(model.named_parameters())
    norms = {}
    for pair in coupled_pairs(model):
        parts = [
            named[axis.parameter].double().index_select(axis.axis, axis.index.flatten().to(_device(model)))
            for _, axis in pair_matrices(pair, named)
        ]
        norms[pair.name] = math.fsum(float(part.square().mean().sqrt()) for part in parts) / len(parts)
    return norms


@torch.no_grad()
def inner_activations(model: nn.Module, calibration: Calibration) -> dict[str, float]:
    """Root mean square of what flows between the two matrices of every pair.

    QK: the queries and the keys as projected, the mean of both. VO: the mixed values that W_O is given. FFN: the hidden
    layer after its activation function, as W_out is given it.

    Args:
        model: in evaluation mode meanwhile.
        calibration: the first SEQUENCES_SEEN sequences of it are used.

    Returns:
        Pair name -> value, in the unit of the activations.
    """
    sums: dict[tuple[str, int], list[float]] = {}

    def add(key: tuple[str, int], values: Tensor) -> None:
        entry = sums.setdefault(key, [0.0, 0.0])
        entry[0] += float(values.double().square().sum())
        entry[1] += values.numel()

    with ExitStack() as stack:
        for pair in coupled_pairs(model):
            for number, (module, outputs_at) in enumerate(_inner_places(model, pair)):
                stack.callback(_observe(module, outputs_at, partial(add, (pair.name, number))).remove)
        _run(model, calibration)
    roots: dict[str, list[float]] = {}
    for (name, _), (total, count) in sums.items():
        roots.setdefault(name, []).append(math.sqrt(total / count))
    return {name: math.fsum(values) / len(values) for name, values in roots.items()}


def attention_focus(weights: Tensor) -> float:
    """Concentration of attention: one minus its entropy, in units of the largest that there could be.

    focus = 1 - mean over queries of  (-sum_k p_k log p_k) / log(keys that the query sees)

    Args:
        weights: (batch, heads, queries, keys), rows sum to 1; a key of weight 0 is one that the query does not see.

    Returns:
        Value in [0, 1]: 0 for uniform attention, 1 for attention to a single key each. Queries that see one key only
        are left out; 0 if there are no others.
    """
    rows = weights.double()
    seen = (rows > 0).sum(-1)
    entropy = torch.special.entr(rows).sum(-1)
    free = seen > 1
    if not bool(free.any()):
        return 0.0
    return float(1 - (entropy[free] / seen[free].double().log()).mean())


@torch.no_grad()
def attention_focuses(model: nn.Module, calibration: Calibration) -> dict[str, float]:
    """`attention_focus` of every attention module, the mean over batches.

    Args:
        model: a transformers model; in evaluation mode and with eager attention meanwhile, which alone gives weights.
        calibration: the first SEQUENCES_SEEN sequences of it are used.

    Returns:
        Name of the attention module -> focus.
    """
    focuses: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for name in dict.fromkeys(pair.module for pair in coupled_pairs(model) if pair.kind is not PairKind.FFN):
            keep = focuses.setdefault(name, [])
            hook = model.get_submodule(name).register_forward_hook(
                lambda _, args, result, keep=keep: keep.append(attention_focus(result[1]))
            )
            stack.callback(hook.remove)
        stack.enter_context(_eager_attention(model))
        _run(model, calibration)
    return {name: math.fsum(values) / len(values) for name, values in focuses.items()}


def ranks(values: dict[str, float]) -> dict[str, float]:
    """Share of the others that lie below each value, in [0, 1); equal values share the lowest rank."""
    ordered = sorted(values.values())
    return {name: ordered.index(value) / len(ordered) for name, value in values.items()}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _inner_places(model: nn.Module, pair: CoupledPair) -> Iterator[tuple[nn.Module, Tensor | None]]:
    """Modules to look at: with the positions of their outputs for QK, with None for the inputs of W_O and W_out."""
    named: dict[str, Tensor] = dict(model.named_parameters())
    for side, axis in pair_matrices(pair, named):
        module = model.get_submodule(axis.parameter.rpartition(".")[0])
        if pair.kind is PairKind.QK:
            yield module, axis.index.flatten().to(_device(model))
        elif side == "right":
            yield module, None


def _observe(module: nn.Module, outputs_at: Tensor | None, add: Callable[[Tensor], None]) -> RemovableHandle:
    """Show `add` the outputs of a module at some positions, or its inputs for None."""
    if outputs_at is None:
        return module.register_forward_pre_hook(lambda _, args: add(args[0]))
    return module.register_forward_hook(lambda _, args, result: add(result[..., outputs_at]))


def _first_batches(calibration: Calibration) -> Iterator[Batch]:
    seen = 0
    for batch in calibration.batches:
        if seen >= SEQUENCES_SEEN:
            return
        rest = SEQUENCES_SEEN - seen
        yield {name: value[:rest] for name, value in batch.items()}
        seen += len(next(iter(batch.values())))


def _run(model: nn.Module, calibration: Calibration) -> None:
    was_training = model.training
    model.eval()
    try:
        for batch in _first_batches(calibration):
            outputs(model, batch)
    finally:
        model.train(was_training)


@contextmanager
def _eager_attention(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
