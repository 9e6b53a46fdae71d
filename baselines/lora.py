"""LoRA from the first step: the matrices of the blocks stay what they were, and low-rank adapters train in parallel.

Source: Hu et al. (arXiv 2106.09685); as a baseline of pre-training in Zhao et al. (GaLore, arXiv 2403.03507), section
5.1, and of Lialin et al. (ReLoRA, arXiv 2307.05695). The adapters are those of the peft library.
Equations: h = W x + (alpha / r) B A x with W frozen; A (r, in) random, B (out, r) zero. In the end W + (alpha / r) B A.
Faithful: adapters at every projection of attention and FFN, the same rank everywhere, alpha 32 as in GaLore's
comparison; embeddings, norms, biases and head go on training, as in both comparisons of pre-training (LoRA's own paper
adapts trained models, only their attention, and trains nothing else). A is drawn by Kaiming's uniform rule, as in the
authors' and peft's code; the paper says Gaussian.
Changed: r is a quarter of the residual width, at most 512: GaLore's 128 of 512, 256 of 1024 and 512 of 2048 (its 130M
model has a third).
Simplified: no dropout on the adapters (GaLore's comparison has 0.05).
It does not shrink: the budget's target is not looked at, and sizes are those without adapters. What it saves during
training is optimizer state and gradients, not weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from baselines.adapters import (
    adapter_parameters,
    initialise,
    inject,
    load_adapted,
    merge,
    refuse_adapters,
    save_adapted,
)
from baselines.block_walk import matrix, projections
from baselines.method import Budget, HistoryEntry, TrainingMethod, TrainingState, size_entry
from ecospa.families import transformer_blocks

ALPHA = 32
RANK_SHARE = 4
"""The rank is the residual width divided by this."""
RANK_LIMIT = 512


class LoRA(TrainingMethod):
    """Trains adapters from the first step to the last, then merges them."""

    name: ClassVar[str] = "lora"
    title = "LoRA"
    removes = "nothing"
    group = "memory-efficient training"
    reads_gradients: ClassVar[bool] = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, AdapterTraining(adapter_rank, ALPHA, budget.seed, train_rest=True))


def adapter_rank(model: nn.Module) -> int:
    """Rank of all adapters: r = min(512, max(1, d // 4)) with d the width of the residual stream.

    Args:
        model: a plain model of a known family.
    """
    block = next(iter(transformer_blocks(model).values()))
    first = next(iter(projections(block).values()))  # of the attention: it reads the residual stream
    return min(RANK_LIMIT, max(1, matrix(first).shape[1] // RANK_SHARE))


class AdapterTraining:
    """Trains adapters instead of the matrices of the blocks, and merges them at the end (a `Shrinker`).

    Args:
        rank: model without adapters -> r.
        alpha: the update is scaled by alpha / r.
        seed: decides A.
        train_rest: whether embeddings, norms, biases and the head go on training; else the adapters alone do.
        before: changes the dense model before it gets its adapters, such as a cut.
    """

    def __init__(
        self,
        rank: Callable[[nn.Module], int],
        alpha: float,
        seed: int,
        train_rest: bool,
        before: Callable[[nn.Module], None] | None = None,
    ) -> None:
        self.history: list[HistoryEntry] = []
        self._rank, self._alpha, self._seed, self._train_rest, self._before = rank, alpha, seed, train_rest, before

    def start(self, model: nn.Module) -> None:
        """Give a plain model its adapters; the first entry of the history is the model that they are put on.

        Raises:
            UnsupportedModelError: the model holds adapters already, or is quantised.
        """
        refuse_adapters(model)
        if self._before is not None:
            self._before(model)
        self.history[:] = [size_entry(0, model)]
        inject(model, self._rank(model), self._alpha, train_rest=self._train_rest)
        initialise(model, self._seed)

    def attach(self, model: nn.Module) -> None:
        """Nothing: a checkpoint's model has its adapters already."""

    def after_backward(self, state: TrainingState) -> None:
        """Nothing: the optimizer trains what has a gradient."""

    def after_step(self, state: TrainingState) -> None:
        """Nothing."""

    def finish(self, state: TrainingState) -> None:
        """Merge; a second call changes nothing."""
        merge(state.model)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the model, and its adapters while it has some."""
        save_adapted(model, folder)

    def load(self, folder: Path, dense: nn.Module) -> nn.Module:
        """Read what `save` wrote."""
        return load_adapted(folder)

    def removed(self, model: nn.Module) -> int:
        """Entries of the adapters, which count in no size."""
        return adapter_parameters(model)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"history": [dict(entry) for entry in self.history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.history[:] = [dict(entry) for entry in state["history"]]
