"""Whole heads and FFN channels: the structures that most structured competitors remove, and how a target is met.

The methods differ in how they score a structure; which of them fit into the budget, and the cut itself, are the same.
Unlike the pairs of ecospa, layers may end with different numbers of heads; a head takes its query heads with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ecospa import CoupledPair, PairKind, SparsityPlan, apply_plan, coupled_pairs
from ecospa.plan import index_parameters
from ecospa.surgery import keep_heads


@dataclass(frozen=True)
class Structures:
    """Structures that can be removed from a model.

    Attributes:
        heads: attention module -> key/value heads.
        channels: FFN pair -> hidden channels.
        head_parameters: attention module -> parameters that leave with one key/value head and its query heads.
        channel_parameters: FFN pair -> parameters that leave with one channel.
    """

    heads: Mapping[str, int]
    channels: Mapping[str, int]
    head_parameters: Mapping[str, int]
    channel_parameters: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Kept:
    """Structures that stay, by ascending numbers; layers that are not named stay whole.

    Attributes:
        heads: attention module -> int64 (kept,).
        channels: FFN pair -> int64 (kept,).
    """

    heads: Mapping[str, Tensor] = field(default_factory=dict)
    channels: Mapping[str, Tensor] = field(default_factory=dict)


def structures(model: nn.Module) -> Structures:
    """Heads and channels of a model, and what each costs in parameters."""
    pairs = coupled_pairs(model)
    ffn = [pair for pair in pairs if pair.kind is PairKind.FFN]
    attention: dict[str, list[CoupledPair]] = {}
    for pair in pairs:
        if pair.kind is not PairKind.FFN:
            attention.setdefault(pair.module, []).append(pair)
    return Structures(
        heads={name: own[0].groups for name, own in attention.items()},
        channels={pair.name: pair.width for pair in ffn},
        head_parameters={
            name: sum(pair.width * index_parameters(model, pair) for pair in own) // own[0].groups
            for name, own in attention.items()
        },
        channel_parameters={pair.name: index_parameters(model, pair) for pair in ffn},
    )


def most_removable(model: nn.Module, floor: int = 1) -> int:
    """Parameters that go when every layer keeps one head and `floor` channels."""
    available = structures(model)
    heads = sum((count - 1) * available.head_parameters[name] for name, count in available.heads.items())
    return heads + sum(
        (n - min(floor, n)) * available.channel_parameters[name] for name, n in available.channels.items()
    )


def choose(
    model: nn.Module,
    head_scores: Mapping[str, Tensor],
    channel_scores: Mapping[str, Tensor],
    removable: int,
    floor: int = 1,
) -> Kept:
    """The structures of lowest score go, heads and channels of all layers in one ranking, while they fit.

    Args:
        model: the model.
        head_scores: attention module -> (heads,), finite; heads of modules that are not named stay.
        channel_scores: FFN pair -> (channels,), likewise.
        removable: parameters that may go at most; what is left over is less than any structure that could still go.
        floor: channels that every layer keeps; one head always stays.

    Returns:
        What stays of the layers that change; of equal scores heads go first, then the earlier layer and number.

    Raises:
        ValueError: a score is NaN or infinite, or one has the wrong shape.
    """
    available = structures(model)
    left = {**available.heads, **available.channels}
    costs = {**available.head_parameters, **available.channel_parameters}
    least = {**dict.fromkeys(available.heads, 1), **dict.fromkeys(available.channels, floor)}
    scores = {**head_scores, **channel_scores}
    gone: dict[str, list[int]] = {name: [] for name in scores}
    for _, name, number in _ranking(scores, left):
        if left[name] > least[name] and costs[name] <= removable:
            gone[name].append(number)
            left[name] -= 1
            removable -= costs[name]
    stays = {name: _others(len(scores[name]), numbers) for name, numbers in gone.items() if numbers}
    return Kept(
        {name: kept for name, kept in stays.items() if name in available.heads},
        {name: kept for name, kept in stays.items() if name in available.channels},
    )


def cut(model: nn.Module, kept: Kept, optimizer: Any = None) -> None:
    """Remove heads and channels in place, with the optimizer's state."""
    keep_heads(model, kept.heads, optimizer)
    plan = SparsityPlan.build(model, {name: numbers.view(1, -1) for name, numbers in kept.channels.items()})
    apply_plan(model, plan, optimizer)


def _ranking(scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> list[tuple[float, str, int]]:
    ranked = []
    for name, values in scores.items():
        if name not in counts or values.shape != (counts[name],):
            wanted = counts.get(name, "no structure of that name")
            raise ValueError(f"{name}: scores have shape {tuple(values.shape)}; the model has {wanted}")
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{name}: a score is NaN or infinite; look for broken weights or data")
        ranked += [(score, name, number) for number, score in enumerate(values.tolist())]
    return sorted(ranked, key=lambda item: item[0])


def _others(count: int, gone: list[int]) -> Tensor:
    stays = torch.ones(count, dtype=torch.bool, device="cpu")
    stays[gone] = False
    return stays.nonzero().flatten()
