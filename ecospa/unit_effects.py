"""UnitEffects: first-order effect of every removable index of a model, for `EcoSpaConfig.ranking="units"`.

Like the estimator of pairs it adds numbers up on the device, step by step, and only an event reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ecospa.estimator import EMPTY_WINDOW, NO_GRADIENT, dense_gradient
from ecospa.importance import position_sums, removal_effects, unit_sums
from ecospa.pairs import CoupledPair
from ecospa.wrappers import named_parameters

_Place = tuple[str, int]
"""Parameter name and axis: of a fused weight, the places of several pairs are one."""


class UnitEffects:
    """Accumulates the effect that the removal of every unit has on the loss (an `ecospa.ImportanceEstimator`).

    e_u = mean over steps of (|sum over left entries of W dL/dW| + |sum over right entries of W dL/dW|) / 2

    The entries of a unit are its rows and columns of all matrices of a side, over copies and rotary partners, and its
    biases. With gradient accumulation the gradient is the mean over micro-batches.

    Args:
        model: model whose parameters and their `.grad` are read.
        pairs: the pairs that may be cut.

    Attributes:
        steps: optimizer steps measured since the last event.

    Deviation: the paper ranks pairs by Fisher information, and indices inside of a pair by norms of the weights.
    """

    def __init__(self, model: nn.Module, pairs: Sequence[CoupledPair]) -> None:
        self._model = model
        self.rebind(pairs)

    def rebind(self, pairs: Sequence[CoupledPair]) -> None:
        """Take over the pairs as they are after a cut, and start a new window."""
        self._pairs = tuple(pairs)
        parameters: dict[str, nn.Parameter] = named_parameters(self._model)
        self._places = {(axis.parameter, axis.axis): parameters[axis.parameter] for p in pairs for axis in p.axes}
        self._sides = {
            pair.name: [
                [((one.parameter, one.axis), one.index.to(parameters[one.parameter].device)) for one in side]
                for side in (pair.left, pair.right)
            ]
            for pair in pairs
        }
        self.steps, self._sums = 0, dict[str, Tensor]()

    @torch.no_grad()
    def update(self) -> None:
        """Add the effects of this step; reads weights and `.grad`, changes nothing, waits for nothing.

        A parameter that the step did not use has no gradient, which is a gradient of zero.

        Raises:
            RuntimeError: no coupled parameter has a gradient, or one is sparse.
        """
        along = {place: self._along(place, parameter) for place, parameter in self._places.items()}
        if all(parameter.grad is None for parameter in self._places.values()):
            raise RuntimeError(NO_GRADIENT)
        for pair in self._pairs:
            left, right = (
                torch.stack([unit_sums(along[place], index, pair.unit) for place, index in side]).sum(0)
                for side in self._sides[pair.name]
            )
            added = removal_effects(left, right)
            before = self._sums.get(pair.name)
            self._sums[pair.name] = added if before is None else before + added  # a mark holds the tensor before
        self.steps += 1

    def importances(self) -> dict[str, float]:
        """Mean effect of the units of every pair; NaN or infinite where a gradient was.

        Raises:
            RuntimeError: the window is empty.
        """
        return {name: float(effects.mean()) for name, effects in self._means().items()}

    def effects(self, model: nn.Module, pairs: Sequence[CoupledPair]) -> dict[str, Float64[Tensor, "groups units"]]:
        """Effect of every unit of some pairs (a `Scorer`), in the unit of the loss.

        Args:
            model: the model of the estimator.
            pairs: those that may be cut; one that has begun to train since the last event is not measured yet, and all
                its units have the largest effect there is.

        Raises:
            RuntimeError: the window is empty.
        """
        means = self._means()
        largest = max((float(effects.max()) for effects in means.values()), default=0.0)
        unknown = {pair.name: torch.full((pair.groups, pair.units), largest, dtype=torch.float64) for pair in pairs}
        return {name: means.get(name, effects) for name, effects in unknown.items()}

    def mark(self) -> tuple[int, Mapping[str, Tensor]]:
        """The window as it is now, for `rewind`."""
        return self.steps, dict(self._sums)

    def rewind(self, mark: tuple[int, Mapping[str, Tensor]]) -> None:
        """Take back, exactly, what was added since a mark."""
        self.steps, self._sums = mark[0], dict(mark[1])

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: an interrupted window goes on bitwise."""
        return {"steps": self.steps, "sums": {name: sums.tolist() for name, sums in self._sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the window that `state_dict` described.

        Raises:
            ValueError: the state belongs to other pairs, or other widths.
        """
        device = next(self._model.parameters()).device
        sums = {name: torch.tensor(rows, dtype=torch.float64, device=device) for name, rows in state["sums"].items()}
        shapes = {pair.name: (pair.groups, pair.units) for pair in self._pairs}
        if sums and {name: tuple(rows.shape) for name, rows in sums.items()} != shapes:
            raise ValueError("the state holds effects of other units than the model has; load both from one checkpoint")
        self.steps, self._sums = int(state["steps"]), sums

    def _along(self, place: _Place, parameter: nn.Parameter) -> Float64[Tensor, " positions"]:
        """Sums of W * dL/dW along the axis of a place."""
        gradient = dense_gradient(place[0], parameter)
        if gradient is None:
            return torch.zeros(parameter.shape[place[1]], dtype=torch.float64, device=parameter.device)
        wide = torch.promote_types(parameter.dtype, torch.float32)
        return position_sums(parameter.detach().to(wide) * gradient, place[1])

    def _means(self) -> dict[str, Float64[Tensor, "groups units"]]:
        if self.steps == 0:
            raise RuntimeError(EMPTY_WINDOW)
        return {name: (sums / self.steps).cpu() for name, sums in self._sums.items()}
