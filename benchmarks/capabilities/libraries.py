"""EcoSpa and Torch-Pruning behind the same three verbs: cut half of a part, remove half of the heads, save.

Both are used as their own documentation says; nothing of one side mends what the other leaves undone.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn

import ecospa
from baselines.calibration import Batch, Calibration
from baselines.structures import Kept, cut, structures
from baselines.torch_pruning import mend_counts, prune, ready
from ecospa import PairKind
from ecospa.pairs import unit_positions
from ecospa.selection import best_units
from ecospa.sparsifier import pair_scores

PARTS: dict[str, tuple[PairKind, ...]] = {
    "attention": (PairKind.QK, PairKind.VO),
    "feed-forward": (PairKind.FFN,),
}


class Side(Protocol):
    """One way to make a model smaller."""

    def cut(self, model: nn.Module, parts: Collection[str], batch: Batch, optimizer: Any = None) -> None:
        """Remove half of the named parts of every block in place; `batch` has labels."""
        ...

    def halve_heads(self, model: nn.Module, batch: Batch) -> None:
        """Remove half of the heads of every block in place, those of the smallest weights."""
        ...

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write weights and configuration without a pickle."""
        ...


class EcoSpaSide:
    """Half of the indices of every pair, the best by norm product stay."""

    def cut(self, model: nn.Module, parts: Collection[str], batch: Batch, optimizer: Any = None) -> None:
        """Cut pairs, with the optimizer's state."""
        kinds = {kind for part in parts for kind in PARTS[part]}
        kept = {
            pair.name: unit_positions(pair, best_units(pair_scores(model, pair), pair.units // 2))
            for pair in ecospa.coupled_pairs(model)
            if pair.kind in kinds
        }
        ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept), optimizer)

    def halve_heads(self, model: nn.Module, batch: Batch) -> None:
        """Heads by the sum of their index scores."""
        scores: dict[str, torch.Tensor] = {}
        for pair in ecospa.coupled_pairs(model):
            if pair.kind is not PairKind.FFN:
                scores[pair.module] = scores.get(pair.module, 0) + pair_scores(model, pair).sum(1)
        cut(model, Kept({name: score.topk(len(score) // 2).indices.sort().values for name, score in scores.items()}))

    def save(self, model: nn.Module, folder: Path) -> None:
        """Its own checkpoint."""
        ecospa.save_pretrained(model, folder)


class TorchPruningSide:
    """Half of the heads and of the channels, the smallest weights go."""

    def cut(self, model: nn.Module, parts: Collection[str], batch: Batch, optimizer: Any = None) -> None:
        """Prune by the library, which knows nothing of an optimizer."""
        available = structures(model)
        removed = {name: count // 2 for name, count in available.heads.items() if "attention" in parts}
        removed |= {name: count // 2 for name, count in available.channels.items() if "feed-forward" in parts}
        with ready(model):
            before = {name: _size(model, name) for name in available.heads}
            prune(model, removed, Calibration((batch,)), importance="magnitude")
            heads = {name: available.heads[name] - removed.get(name, 0) for name in before}
            mend_counts(model, {name: left for name, left in heads.items() if _size(model, name) < before[name]})

    def halve_heads(self, model: nn.Module, batch: Batch) -> None:
        """Its cut of the attention."""
        self.cut(model, ("attention",), batch)

    def save(self, model: nn.Module, folder: Path) -> None:
        """It offers pickles alone; without one there is what the model's own library has."""
        if hasattr(model, "save_pretrained"):
            cast(Any, model).save_pretrained(folder)
        else:
            from safetensors.torch import save_model

            save_model(model, str(folder / "model.safetensors"))


def _size(model: nn.Module, name: str) -> int:
    return sum(parameter.numel() for parameter in model.get_submodule(name).parameters())


SIDES: dict[str, Side] = {"ecospa": EcoSpaSide(), "torch_pruning": TorchPruningSide()}
