"""The size of a model before anything was cut, which a target is a share of, whoever cuts it and however often.

The modules that hold a pair remember its dense heads and width from the first cut on, so that the memory goes along
when a model is copied, wrapped, pickled or given another head. A checkpoint needs no record of it: it is loaded by
cutting the dense model to the saved widths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from ecospa.accounting import parameters
from ecospa.config import TargetScope
from ecospa.families import coupled_pairs
from ecospa.pairs import CoupledPair
from ecospa.wrappers import unwrapped

MEMORY = "_ecospa_dense"
"""Name of the attribute of a module in which its pairs' dense heads and widths are kept."""


def dense_memory(model: nn.Module, pairs: Iterable[CoupledPair]) -> dict[str, dict[str, tuple[int, int]]]:
    """Collect what the modules of pairs about to be cut must remember; what was noted before stays.

    Args:
        model: the model of the pairs.
        pairs: as they are before the cut.

    Returns:
        Dotted name of a module -> the value of its attribute `MEMORY`: kind -> (heads, width).
    """
    memory: dict[str, dict[str, tuple[int, int]]] = {}
    for pair in pairs:
        known = memory.setdefault(pair.module, dict(getattr(unwrapped(model.get_submodule(pair.module)), MEMORY, {})))
        known.setdefault(pair.kind.value, (pair.groups, pair.width))
    return memory


def dense_shape(model: nn.Module, pairs: Sequence[CoupledPair] | None = None) -> dict[str, tuple[int, int]]:
    """Key/value heads (1 for a feed-forward pair) and width of every pair before the first cut, by name of pair.

    Args:
        model: a model of a supported family, cut or whole.
        pairs: its pairs as they are now, where the caller has them.
    """
    model = unwrapped(model)
    return {pair.name: _dense(model, pair) for pair in (coupled_pairs(model) if pairs is None else pairs)}


def dense_parameters(
    model: nn.Module, scope: TargetScope = "parameters", pairs: Sequence[CoupledPair] | None = None
) -> int:
    """Parameters of the model before the first cut.

    now + sum over pairs of (dense heads * dense width - heads * width) * parameters per head and index

    Args:
        model: a model of a supported family, cut or whole.
        scope: "parameters" counts everything, "blocks" what lies inside the transformer blocks.
        pairs: its pairs as they are now, where the caller has them.
    """
    model, removed = unwrapped(model), 0
    for pair in coupled_pairs(model) if pairs is None else pairs:
        heads, width = _dense(model, pair)
        removed += (heads * width - pair.groups * pair.width) * _per_index(model, pair)
    return parameters(model, scope) + removed


def _dense(model: nn.Module, pair: CoupledPair) -> tuple[int, int]:
    known = getattr(unwrapped(model.get_submodule(pair.module)), MEMORY, {})
    heads, width = known.get(pair.kind.value, (pair.groups, pair.width))
    return heads, width


def _per_index(model: nn.Module, pair: CoupledPair) -> int:
    """Parameters that leave with one index of one head."""
    entries = 0
    for axis in pair.axes:
        parameter = model.get_parameter(axis.parameter)
        entries += axis.index.shape[2] * (parameter.numel() // parameter.shape[axis.axis])
    return entries
