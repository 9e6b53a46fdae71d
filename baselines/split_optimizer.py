"""One optimizer made of two: a rule for the matrices of the blocks, and AdamW for all that is no such matrix.

Most optimizers that save memory, or that need a matrix, are defined so: embeddings, head, norms and biases stay with
AdamW. Schedules, byte counters and checkpoints see one optimizer, whose groups and state are those of its parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from baselines.galore import parameter_groups
from baselines.method import Budget
from ecospa import ConfigError

GROWTH = 1.01
"""Most by which the norm of an update may grow from one step to the next."""


class Part(Protocol):
    """Optimizer of some parameters; torch's are such."""

    param_groups: list[dict[str, Any]]
    state: Any

    def step(self) -> Any:
        """Make one step."""


class SplitOptimizer(torch.optim.Optimizer):
    """Several optimizers as one, whose groups and state are theirs, shared and not copied.

    Args:
        parts: in the order of their groups; those without parameters are to be left out.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every part."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the state of all parts."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Give every part its groups again, and the state that is common to all: loading replaces both."""
        first = 0
        for part in self.parts:
            last = first + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[first:last], self.state
            first = last


class MatrixOptimizer(torch.optim.Optimizer, ABC):
    """Rule for matrices: W <- (1 - lr wd) W - lr U, where a subclass makes U of the gradient.

    Args:
        params: groups of matrices; `transposed` says that those of a group are (in, out), as in transformers' Conv1D.
        budget: gives learning rate and weight decay.
        options: of the rule, for every group.
    """

    def __init__(self, params: Iterable[Any], budget: Budget, **options: Any) -> None:
        defaults = {"lr": budget.learning_rate, "weight_decay": budget.weight_decay, "transposed": False, **options}
        super().__init__(params, defaults)

    @abstractmethod
    def update(self, parameter: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """U of one matrix.

        Args:
            parameter: which.
            gradient: (out, in), however the matrix is stored.
            state: of this matrix; empty at its first step.
            group: options.

        Returns:
            U, (out, in).
        """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; matrices without a gradient are left alone."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.T if group["transposed"] else parameter.grad
                update = self.update(parameter, gradient, self.state[parameter], group)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.T if group["transposed"] else update, alpha=-group["lr"])
        return loss


def with_adamw(model: nn.Module, budget: Budget, rule: Callable[[list[dict[str, Any]]], Part]) -> SplitOptimizer:
    """A rule for the matrices of the blocks, and AdamW for the rest.

    Args:
        model: of a known family.
        budget: gives AdamW's learning rate and weight decay.
        rule: groups of matrices, {"params", "transposed"} -> their optimizer.

    Raises:
        ConfigError: no matrix of a block trains.
    """
    groups = parameter_groups(model)
    matrices = [{"params": group["params"], "transposed": group["transposed"]} for group in groups if group["project"]]
    if not matrices:
        raise ConfigError("no matrix of a block requires a gradient; train at least one, or take the method dense")
    rest = [parameter for group in groups if not group["project"] for parameter in group["params"]]
    parts: list[Part] = [rule(matrices)]
    if rest:
        parts.append(torch.optim.AdamW(rest, lr=budget.learning_rate, weight_decay=budget.weight_decay))
    return SplitOptimizer(parts)


def by_rank(groups: Iterable[dict[str, Any]], divisor: int) -> list[dict[str, Any]]:
    """Groups of matrices, split further by rank: the smaller side divided by `divisor`, at least 1.

    Args:
        groups: {"params", ...}.
        divisor: of the smaller side.

    Returns:
        Groups with a "rank".
    """
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            rank = max(1, min(parameter.shape) // divisor)
            found.setdefault((number, rank), {**group, "params": [], "rank": rank})["params"].append(parameter)
    return list(found.values())


def limited(update: Tensor, state: dict[str, Any]) -> Tensor:
    """An update whose norm exceeds the one before by at most 1 %, and that is remembered for the next.

    U <- U min(1, 1.01 phi / |U|);  phi <- |U|

    Args:
        update: U, of any shape.
        state: of the matrix; holds phi as "norm".

    Returns:
        U, shortened where it has grown too much.

    Source: arXiv 2410.01623, norm-growth limiter.
    """
    norm = update.norm()
    if "norm" not in state:
        state["norm"] = norm
        return update
    state["norm"] = torch.minimum(norm, GROWTH * state["norm"])
    return update * (state["norm"] / norm.clamp(min=torch.finfo(norm.dtype).tiny))
