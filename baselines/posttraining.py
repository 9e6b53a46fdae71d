"""PostTraining: what one-shot methods share: one cut when training is over, down to the target at once.

SparseGPT and its like take a trained model and never train again. In an experiment that trains, they therefore act in
`finish`, on the weights of the last step; in one that does not, that is the only thing that happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from baselines.masks import Masks
from baselines.method import Budget, HistoryEntry, TrainingState, check_reachable, size_entry
from ecospa.accounting import parameters

Compress = Callable[[nn.Module, int], None]
"""(model, parameters of the target scope that may go at most) -> the model is smaller, or masked, afterwards."""


class PostTraining:
    """One cut at the end (a `baselines.method.Shrinker`).

    Args:
        budget: target and scope.
        compress: the method's work: cuts the model in place, or writes into `masks`.
        masks: given by a method that masks.
        reachable: model -> parameters of the target scope that could go at most, to refuse a target early.

    Raises:
        ConfigError: the budget has no target.
    """

    def __init__(
        self,
        budget: Budget,
        compress: Compress,
        masks: Masks | None = None,
        reachable: Callable[[nn.Module], int] | None = None,
    ) -> None:
        self.config = budget.config()
        self.history: list[HistoryEntry] = []
        self.masks = masks
        self._compress, self._reachable = compress, reachable
        self._full_size = 0
        self._done = False

    def start(self, model: nn.Module) -> None:
        """Look at the dense model.

        Raises:
            ConfigError: the target cannot be reached with this model.
        """
        self._full_size, self._done = parameters(model, self.config.target_scope), False
        if self._reachable is not None:
            least = self._full_size - self._reachable(model)
            check_reachable(self.config.target_size, self.config.target_scope, self._full_size, least)
        self.history[:] = [size_entry(0, model)]

    def attach(self, model: nn.Module) -> None:
        """Nothing is done before the end."""
        if not self._full_size:
            self.start(model)

    def after_backward(self, state: TrainingState) -> None:
        """Nothing is done before the end."""

    def after_step(self, state: TrainingState) -> None:
        """Nothing is done before the end."""

    def finish(self, state: TrainingState) -> None:
        """Cut, once."""
        self.attach(state.model)
        if self._done:
            return
        self._compress(state.model, max(0, self._excess(state.model)))
        if self.masks is not None:
            self.masks.zero_weights(state.model)
            self.masks.detach()
        self._done = True
        new = size_entry(state.step, state.model, self.removed(state.model))
        if self.history[-1]["step"] == state.step:
            self.history.pop()
        self.history.append(new)

    def removed(self, model: nn.Module) -> int:
        """Entries that are stored but masked."""
        return 0 if self.masks is None else self.masks.count

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {
            "history": [dict(old) for old in self.history],
            "full_size": self._full_size,
            "done": self._done,
            "masks": None if self.masks is None else self.masks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.history[:] = [dict(old) for old in state["history"]]
        self._full_size, self._done = int(state["full_size"]), bool(state["done"])
        if self.masks is not None:
            self.masks.load_state_dict(state["masks"])

    def _excess(self, model: nn.Module) -> int:
        return parameters(model, self.config.target_scope) - round(self.config.target_size * self._full_size)
