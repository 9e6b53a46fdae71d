"""CoupledEstimator: from gradients to the importance of every pair (paper, coupled estimation).

Between events it does one thing per step: it adds the squared norm of every matrix's gradient to a running sum, on the
device, without waiting for it: in two fused calls on an accelerator. Only an event reads the sums.

Squares leave a number format long before the gradients do: 1e25 is an ordinary float32 and its square is not, 1e-30 has
a square of zero. What the fast sum of a matrix cannot hold is summed again in a wider format or at another scale, so
that only a gradient that is infinite counts as infinite, and only one that is zero as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ecospa.config import ConfigError, EstimatorMode
from ecospa.importance import FLOORS, mean_of_matrices, mean_square, scaled, scaled_norm, square_sums
from ecospa.optimizers import all_of, names_of
from ecospa.pairs import CoupledPair, WeightAxis, pair_matrices
from ecospa.wrappers import named_parameters

MatrixKey = tuple[str, str, str]
"""Pair name, side ("left" or "right") and parameter name of one matrix."""

_EXPONENTS = 480
"""Powers of two by which a norm may be away from the scale of its window: squares of more do not fit into float64."""

WindowMark = Mapping[str, Any]
"""Note taken by `CoupledEstimator.mark`."""

NO_GRADIENT = "no coupled matrix has a gradient; call after backward() and before zero_grad()"
EMPTY_WINDOW = "no gradient was seen since the last event; call update() after every backward()"

_WINDOW = ("steps", "_sums", "_shift")
"""Fields that a step changes."""


class ImportanceEstimator(Protocol):
    """An importance of pairs: what `CoupledSparsity` asks of its estimator.

    `CoupledEstimator` is one, and a subclass of it that overrides `step_sums` the shortest way to another: it keeps
    window, resuming and rewinding. Larger is more important; values need no unit, only their order counts.
    """

    @property
    def steps(self) -> int:
        """Optimizer steps measured since the last event; at 0 an event cuts nothing.

        A constant 1 suits an importance that needs no gradients.
        """

    def update(self) -> None:
        """Measure one step: gradients are in `.grad`, and weights are those that they belong to."""

    def importances(self) -> Mapping[str, float]:
        """Importance of every pair by name, from what was measured; NaN or infinite makes the event cut nothing."""

    def rebind(self, pairs: Sequence[CoupledPair]) -> None:
        """Take over the pairs that may be cut, at the start and after every event, and forget what was measured."""

    def mark(self) -> Any:
        """Anything by which `rewind` takes back later updates: a step may be measured once per micro-batch."""

    def rewind(self, mark: Any) -> None:
        """Take back what was measured since a mark; it may be rewound to several times."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state of what was measured."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, on a model of the same widths."""


EstimatorMaker = Callable[[nn.Module, Sequence[CoupledPair]], ImportanceEstimator]
"""(model, pairs that may be cut) -> estimator: the class of one, as a rule."""


class TiedImportanceWarning(RuntimeWarning):
    """Pairs of importance zero were more than an event cuts: which of them were cut is an accident of their order."""


class CoupledEstimator:
    """Accumulates the empirical Fisher information of every matrix of every pair.

    I(W) = mean over steps of mean_ij (dL/dW_ij)^2, and I(pair) = mean over its matrices of I(W)

    With gradient accumulation the gradient that is squared is the mean over micro-batches: the square of a mean.

    Args:
        model: model whose parameters' `.grad` is read.
        pairs: the model's pairs.
        mode: "fisher" sums squared gradients since the last reset, "adam" reads the optimizer's second moment instead,
            which is a running mean of the same squares over about 1 / (1 - beta2) steps.
        optimizer: needed by "adam"; of several, the one that holds a matrix is asked.

    Raises:
        ConfigError: mode "adam" without an optimizer.

    Source: paper, coupled estimation.
    """

    def __init__(
        self, model: nn.Module, pairs: Sequence[CoupledPair], mode: EstimatorMode = "fisher", optimizer: Any = None
    ) -> None:
        if mode == "adam" and optimizer is None:
            raise ConfigError("estimator is 'adam' but no optimizer was given; pass it, or use estimator='fisher'")
        self.mode = mode
        self._model = model
        self._optimizer = optimizer
        self.steps, self._shift = 0, 0
        self._sums: Tensor | None = None
        self.rebind(pairs)

    def rebind(self, pairs: Sequence[CoupledPair]) -> None:
        """Take over the pairs as they are after a cut, and start a new window."""
        parameters: dict[str, Any] = named_parameters(self._model)
        self._pairs = tuple(pairs)
        self._matrices = {
            (pair.name, side, axis.parameter): _Matrix.of(parameters[axis.parameter], axis)
            for pair in pairs
            for side, axis in pair_matrices(pair, parameters)
        }
        self.reset()

    def mark(self) -> WindowMark:
        """The window as it is now, for `rewind`."""
        return {name: _kept(getattr(self, name)) for name in _WINDOW}

    def rewind(self, mark: WindowMark) -> None:
        """Take back, exactly, what was added since a mark."""
        for name, value in mark.items():
            setattr(self, name, _kept(value))

    def reset(self) -> None:
        """Forget the window."""
        self.steps, self._sums, self._shift = 0, None, 0

    @torch.no_grad()
    def update(self) -> None:
        """Add the squared gradient norms of this step; reads `.grad`, changes nothing, waits for nothing.

        A matrix that the step did not use (layer drop, a branch not taken, frozen since) has no gradient, which is a
        gradient of zero.

        Raises:
            RuntimeError: no matrix has a gradient: the model was not trained, or the gradients were cleared before
                this call; or a gradient is sparse.
        """
        if self.mode == "adam":
            self.steps += 1
            return
        weights, gradients, used = [], [], []
        for number, ((_, _, name), matrix) in enumerate(self._matrices.items()):
            gradient = dense_gradient(name, matrix.parameter)
            if gradient is None:
                continue
            weights.append(matrix.part(matrix.parameter))
            gradients.append(matrix.part(gradient))
            used.append(number)
        if not used:
            raise RuntimeError(NO_GRADIENT)
        added = self.step_sums(weights, gradients)
        if not isinstance(added, Tensor) or added.shape != (len(used),):
            found = f"shape {tuple(added.shape)}" if isinstance(added, Tensor) else repr(added)
            raise ValueError(
                f"step_sums of {type(self).__name__} returned {found}; it must return one number per matrix, "
                f"a tensor ({len(used)},): torch.stack([... for gradient in gradients])"
            )
        if len(used) < len(self._matrices):
            every = added.new_zeros(len(self._matrices))
            added = every.index_copy_(0, torch.tensor(used, device=added.device), added)
        self._sums = added if self._sums is None else self._sums.add_(added)
        self.steps += 1

    def step_sums(self, weights: list[Tensor], gradients: list[Tensor]) -> Float64[Tensor, " matrices"]:
        """Return what one step adds to the sum of every matrix: sum_ij (dL/dW_ij)^2.

        A subclass that overrides it ranks pairs by another mean over entries and steps.

        Args:
            weights: the matrices of all pairs, as views.
            gradients: their gradients, of the same shapes.

        Returns:
            float64 (matrices,), on the device; in the unit of the window (`matrix_importances`).
        """
        sums = square_sums(gradients)
        if sums.device.type != "cpu":  # looking at them would be waiting for them
            return sums
        lost = [
            number
            for number, (value, gradient) in enumerate(zip(sums.tolist(), gradients, strict=True))
            if self._shift or not FLOORS.get(gradient.dtype, 0.0) * gradient.numel() <= value < math.inf
        ]
        return self._summed_again(sums, gradients, lost) if lost else sums

    def _summed_again(self, sums: Tensor, gradients: list[Tensor], lost: list[int]) -> Tensor:
        """The same sums where squares of `lost` gradients had left their format; the window's unit follows them."""
        norms = {number: scaled_norm(gradients[number]) for number in lost}
        scales = [exponent for norm, exponent in norms.values() if 0 < norm < math.inf]
        if scales and not -_EXPONENTS < max(scales) - self._shift < _EXPONENTS:
            within = len(lost) < len(gradients) or self._sums is not None
            if max(scales) > self._shift or not within:
                return self._rescaled(gradients, max(scales))
        for number, (norm, exponent) in norms.items():
            sums[number] = scaled(norm * norm, 2 * (exponent - self._shift))
        return sums

    def _rescaled(self, gradients: list[Tensor], shift: int) -> Tensor:
        """Take another unit for the window: what it holds is brought to it, and the step is summed in it."""
        if self._sums is not None:
            factor = 2.0 ** (self._shift - shift)
            self._sums = self._sums * factor * factor
        self._shift = shift
        norms = [scaled_norm(gradient) for gradient in gradients]
        sums = [scaled(norm * norm, 2 * (exponent - shift)) for norm, exponent in norms]
        return torch.tensor(sums, dtype=torch.float64)

    def matrix_importances(self) -> dict[MatrixKey, float]:
        """Empirical Fisher of every matrix over the window: mean squared gradient per entry and step.

        Returns:
            Value per (pair, side, parameter); NaN or infinite where a gradient of the window was. Where squares do not
            fit into float64 (on the CPU; gradients of 1e154 and more) all values are in another unit, one for all.

        Raises:
            RuntimeError: the window is empty.
        """
        if self.mode == "adam":
            return {key: self._second_moment(matrix) for key, matrix in self._matrices.items()}
        if self._sums is None:
            raise RuntimeError(EMPTY_WINDOW)
        values = self._sums.tolist()
        return {
            key: mean_square(value, matrix.entries, self.steps)
            for (key, matrix), value in zip(self._matrices.items(), values, strict=True)
        }

    def importances(self) -> dict[str, float]:
        """Importance of every pair: the mean over its matrices. NaN or infinite where a gradient was."""
        grouped: dict[str, list[float]] = {pair.name: [] for pair in self._pairs}
        for (name, _, _), value in self.matrix_importances().items():
            grouped[name].append(value)
        return {name: mean_of_matrices(values) for name, values in grouped.items()}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: an interrupted window goes on bitwise."""
        state = {"steps": self.steps, "sums": None if self._sums is None else self._sums.tolist()}
        return state | ({"shift": self._shift} if self._shift else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the window that `state_dict` described.

        Raises:
            ValueError: the state belongs to another number of matrices.
        """
        sums = state["sums"]
        if sums is not None and len(sums) != len(self._matrices):
            raise ValueError(f"the state holds {len(sums)} matrices, the model has {len(self._matrices)}")
        device = next(self._model.parameters()).device
        self.steps, self._shift = int(state["steps"]), int(state.get("shift", 0))
        self._sums = None if sums is None else torch.tensor(sums, dtype=torch.float64, device=device)

    def _second_moment(self, matrix: _Matrix) -> float:
        for one in all_of(self._optimizer):
            moment = one.state.get(matrix.parameter, {}).get("exp_avg_sq")
            if moment is not None and moment.shape == matrix.parameter.shape:
                return float(matrix.part(moment).to(torch.float64).mean())
        kind = names_of(self._optimizer)
        raise RuntimeError(f"{kind} keeps no exp_avg_sq of the parameter's shape; use estimator='fisher'")


@dataclass(frozen=True)
class _Matrix:
    """One matrix inside its parameter: `count` positions from `start` on, looked up once and not at every step."""

    parameter: nn.Parameter
    axis: int
    start: int
    count: int

    @classmethod
    def of(cls, parameter: nn.Parameter, axis: WeightAxis) -> _Matrix:
        """The positions of a matrix are one run of its axis, also in a fused weight."""
        return cls(parameter, axis.axis, int(axis.index[0, 0, 0]), axis.index.numel())

    @property
    def entries(self) -> int:
        """Number of weights in it."""
        return self.count * (self.parameter.numel() // self.parameter.shape[self.axis])

    def part(self, value: Tensor) -> Tensor:
        """Its part of a tensor of the parameter's shape: a view."""
        return value if self.count == value.shape[self.axis] else value.narrow(self.axis, self.start, self.count)


def dense_gradient(name: str, parameter: nn.Parameter) -> Tensor | None:
    """The gradient of a coupled parameter; None where the step did not use it, which is a gradient of zero.

    Args:
        name: of the parameter.
        parameter: the parameter.

    Raises:
        RuntimeError: it is sparse.
    """
    if parameter.grad is not None and parameter.grad.layout is not torch.strided:
        raise RuntimeError(f"the gradient of {name} is sparse; a coupled matrix is cut whole, make it dense")
    return parameter.grad


def tied_at_zero(importances: Mapping[str, float], chosen: int) -> tuple[str, ...]:
    """Pairs of importance zero, where they are more than are chosen: then their order decides, and nothing else.

    Args:
        importances: importance of every pair.
        chosen: how many of the least important an event takes.

    Returns:
        Their names; none where importance decides.
    """
    zero = tuple(name for name, value in importances.items() if value == 0)
    return zero if len(zero) > chosen else ()


def _kept(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
