"""CoupledEstimator: from gradients to the importance of every pair (paper, coupled estimation).

Between events it does one thing per step: it adds the squared norm of every matrix's gradient to a running sum, on the
device, without waiting for it: in two fused calls on an accelerator. Only an event reads the sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ecospa.config import ConfigError, EstimatorMode
from ecospa.pairs import CoupledPair, WeightAxis, pair_matrices
from ecospa.wrappers import named_parameters

MatrixKey = tuple[str, str, str]
"""Pair name, side ("left" or "right") and parameter name of one matrix."""


class CoupledEstimator:
    """Accumulates the empirical Fisher information of every matrix of every pair.

    I(W) = mean over steps of mean_ij (dL/dW_ij)^2, and I(pair) = mean over its matrices of I(W)

    With gradient accumulation the gradient that is squared is the mean over micro-batches: the square of a mean.

    Args:
        model: model whose parameters' `.grad` is read.
        pairs: the model's pairs.
        mode: "fisher" sums squared gradients since the last reset, "adam" reads the optimizer's second moment instead,
            which is a running mean of the same squares over about 1 / (1 - beta2) steps.
        optimizer: needed by "adam".

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
        self.steps = 0
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

    def reset(self) -> None:
        """Forget the window."""
        self.steps, self._sums = 0, None

    @torch.no_grad()
    def update(self) -> None:
        """Add the squared gradient norms of this step; reads `.grad`, changes nothing, waits for nothing.

        Raises:
            RuntimeError: a matrix has no gradient: the model was not trained, the matrix is frozen, or the gradients
                were cleared before this call.
        """
        if self.mode == "adam":
            self.steps += 1
            return
        weights, gradients = [], []
        for (_, _, name), matrix in self._matrices.items():
            if matrix.parameter.grad is None:
                raise RuntimeError(
                    f"{name} has no gradient; call after backward() and before zero_grad(), "
                    "and leave every coupled matrix trainable"
                )
            weights.append(matrix.part(matrix.parameter))
            gradients.append(matrix.part(matrix.parameter.grad))
        added = self.step_sums(weights, gradients)
        self._sums = added if self._sums is None else self._sums.add_(added)
        self.steps += 1

    def step_sums(self, weights: list[Tensor], gradients: list[Tensor]) -> Float64[Tensor, " matrices"]:
        """What one step adds to the sum of every matrix: sum_ij (dL/dW_ij)^2.

        A subclass that overrides it ranks pairs by another mean over entries and steps.

        Args:
            weights: the matrices of all pairs, as views.
            gradients: their gradients, of the same shapes.

        Returns:
            float64 (matrices,), on the device.
        """
        if gradients[0].device.type != "cpu":
            return torch.stack(torch._foreach_norm(gradients)).to(torch.float64).square_()
        return torch.stack([_square_sum(gradient) for gradient in gradients])

    def matrix_importances(self) -> dict[MatrixKey, float]:
        """Empirical Fisher of every matrix over the window: mean squared gradient per entry and step.

        Returns:
            Value per (pair, side, parameter); NaN or infinite where a gradient of the window was.

        Raises:
            RuntimeError: the window is empty.
        """
        if self.mode == "adam":
            return {key: self._second_moment(matrix) for key, matrix in self._matrices.items()}
        if self._sums is None:
            raise RuntimeError("no gradient was seen since the last event; call update() after every backward()")
        values = self._sums.tolist()
        return {
            key: value / (self.steps * matrix.entries)
            for (key, matrix), value in zip(self._matrices.items(), values, strict=True)
        }

    def importances(self) -> dict[str, float]:
        """Importance of every pair: the mean over its matrices. NaN or infinite where a gradient was."""
        grouped: dict[str, list[float]] = {pair.name: [] for pair in self._pairs}
        for (name, _, _), value in self.matrix_importances().items():
            grouped[name].append(value)
        return {
            name: math.fsum(values) / len(values) if _finite(values) else math.nan for name, values in grouped.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: an interrupted window goes on bitwise."""
        return {"steps": self.steps, "sums": None if self._sums is None else self._sums.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the window that `state_dict` described.

        Raises:
            ValueError: the state belongs to another number of matrices.
        """
        sums = state["sums"]
        if sums is not None and len(sums) != len(self._matrices):
            raise ValueError(f"the state holds {len(sums)} matrices, the model has {len(self._matrices)}")
        device = next(self._model.parameters()).device
        self.steps = int(state["steps"])
        self._sums = None if sums is None else torch.tensor(sums, dtype=torch.float64, device=device)

    def _second_moment(self, matrix: _Matrix) -> float:
        state = self._optimizer.state.get(matrix.parameter, {})
        if "exp_avg_sq" not in state or state["exp_avg_sq"].shape != matrix.parameter.shape:
            kind = type(self._optimizer).__name__
            raise RuntimeError(f"{kind} keeps no exp_avg_sq of the parameter's shape; use estimator='fisher'")
        return float(matrix.part(state["exp_avg_sq"]).to(torch.float64).mean())


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
        """How many weights it has."""
        return self.count * (self.parameter.numel() // self.parameter.shape[self.axis])

    def part(self, value: Tensor) -> Tensor:
        """Its part of a tensor of the parameter's shape: a view."""
        return value if self.count == value.shape[self.axis] else value.narrow(self.axis, self.start, self.count)


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)


def _square_sum(gradient: Tensor) -> Tensor:
    """Sum of squares of one matrix on the CPU, as fast as its memory: one dot product, or the norms of its rows."""
    if gradient.is_contiguous() and gradient.dtype in (torch.float32, torch.float64):
        flat = gradient.view(-1)
        return torch.dot(flat, flat).to(torch.float64)
    rows = torch.linalg.vector_norm(gradient, dim=-1).to(torch.float64)
    return torch.dot(rows, rows)
