"""A one-shot method used before a training instead of after it: cut at once, then train what is left.

Methods that shrink while they train are compared with one-shot methods at equal steps. So the latter cut the trained
model first and are given the same steps afterwards. What was cut out stays out; what was masked stays zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.method import TrainingMethod, TrainingState
from benchmarks.training.compress import compress


class PruneThenTrain(TrainingMethod):
    """Cuts in `prepare`, keeps the masks during the training, and has nothing left to do in `finish`.

    Args:
        method: of stage "one-shot".

    Raises:
        ValueError: the method shrinks while it trains, so there is nothing to move.
    """

    def __init__(self, method: TrainingMethod) -> None:
        if method.stage != "one-shot":
            raise ValueError(f"{method.name} is of stage {method.stage!r}; only a one-shot method can be cut first")
        super().__init__(method.budget)
        self.name = method.name  # type: ignore[misc]
        self.needs_calibration = method.needs_calibration  # type: ignore[misc]
        self.method, self.masks, self.history = method, method.masks, method.history

    def prepare(self, model: nn.Module, calibration: Any = None) -> nn.Module:
        """Cut the trained model.

        Raises:
            ConfigError, UnsupportedModelError: what the method says about target, data and architecture.
        """
        was_training = model.training
        smaller = compress(self.method, model, calibration)
        smaller.train(was_training)
        return smaller

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer | None:
        """Mask the gradients of what is masked; the experiment's optimizer trains the rest."""
        if self.masks is not None:
            self.masks.attach(model)
        return None

    def after_step(self, state: TrainingState) -> None:
        """Keep masked weights at zero, whatever the optimizer made of them."""
        if self.masks is not None:
            self.masks.zero_weights(state.model)

    def finish(self, state: TrainingState) -> None:
        """Let go of the model."""
        if self.masks is not None:
            self.masks.detach()

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the smaller model as its method does."""
        self.method.save(model, folder)

    def load(self, folder: Path, dense: nn.Module) -> nn.Module:
        """Read the smaller model as its method does."""
        return self.method.load(folder, dense)

    def state_dict(self) -> dict[str, Any]:
        """The method's state, its masks in it."""
        return self.method.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a run from `state_dict`."""
        self.method.load_state_dict(state)

    def nonzero_parameters(self, model: nn.Module) -> tuple[int, int]:
        """Parameters that are not masked: of the whole model, and of its blocks."""
        return self.method.nonzero_parameters(model)
