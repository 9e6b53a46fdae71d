"""Pairs that do not train: fine-tuning the top, a teacher in the same module, adapters on a frozen base.

A frozen matrix has no gradient that could rank its pair and no step that could make up for a cut, so training leaves
such pairs whole. A one-shot plan does not look at this: a model that is done training is often frozen as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor, nn

from ecospa.pairs import CoupledPair, pair_matrices
from ecospa.tying import twins
from ecospa.wrappers import named_parameters


def frozen_names(model: nn.Module, pairs: Sequence[CoupledPair]) -> frozenset[str]:
    """Names of the pairs with a matrix that has `requires_grad` False.

    Args:
        model: the model of the pairs.
        pairs: some or all of its pairs, as they are now.
    """
    parameters: dict[str, Tensor] = {**named_parameters(model)}
    return frozenset(
        pair.name
        for pair in pairs
        if not all(parameters[axis.parameter].requires_grad for _, axis in pair_matrices(pair, parameters))
    )


def trained_pairs(model: nn.Module, pairs: Sequence[CoupledPair], tied: bool = False) -> tuple[CoupledPair, ...]:
    """The pairs that training may cut, in the order of `coupled_pairs`.

    Args:
        model: a model of a supported family.
        pairs: all its pairs, as they are now.
        tied: query/key and value/output pairs stay equally wide, so one that is frozen keeps the other whole.
    """
    frozen = set(frozen_names(model, pairs))
    if tied and frozen:
        frozen |= {one.name for both in twins(pairs) if any(pair.name in frozen for pair in both) for one in both}
    return tuple(pair for pair in pairs if pair.name not in frozen)


def told(frozen: Collection[str], pairs: int) -> str:
    """Describe the frozen pairs, for a message.

    Args:
        frozen: their names.
        pairs: how many pairs the model has.
    """
    first = sorted(frozen)
    more = f" and {len(first) - 3} more" if len(first) > 3 else ""
    return f"{len(first)} of {pairs} pairs are frozen and stay whole ({', '.join(first[:3])}{more})"
