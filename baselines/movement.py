"""Movement pruning of whole heads and FFN channels: what fine-tuning pulls towards zero goes, however large it is.

Source: Sanh et al. (arXiv 2005.07683), movement pruning; summed over blocks of weights as Lagunas et al. (arXiv
2109.04838) do.
Equations: of a structure B (a head with its query heads, or an FFN channel; matrices only, biases are not scored)
    S_B(T) = - sum over steps t < T of sum over w in B of w(t) dL/dw(t)
A gradient step moves w by - dL/dw: where the product is negative, w moves away from zero and S_B rises.
Faithful: the first-order score, accumulated from the first step on; hard top-k by score on a cubic schedule. The
learning rate of the paper's scores is a factor common to all of them and changes no ranking.
Changed: what goes is cut for good, with its optimizer state. The paper masks: a masked weight gets gradients through
the straight-through estimator, its score goes on learning, and it can come back. Here nothing comes back. No soft
threshold, no penalty on scores, no distillation. Heads and channels of all layers stand in one ranking, by sums and not
by means, as under one global threshold. Query heads that share a key/value head leave together. The curve is the
budget's; but heads are coarse: one that does not fit into what an event may remove waits, and nothing goes in its place
that would outlive it at the target, so that the size may stand up to one head above the curve until the last event.
Each layer keeps one head and one channel. Widths are not rounded to width_multiple. Gradients are those that the
optimizer gets, clipped where the experiment clips. With one event on one gradient the score is one-shot first order.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.curve import BudgetCurve
from baselines.method import Budget, TrainingMethod, TrainingState, size_entry
from baselines.structure_axes import StructureAxis, along, per_structure, removable, structure_axes
from baselines.structures import Kept, choose, cut, structures
from ecospa import SkippedEventWarning
from ecospa.accounting import parameters
from ecospa.schedule import Schedule


class Movement(TrainingMethod):
    """Structured movement pruning on the budget's size curve."""

    name: ClassVar[str] = "movement"
    title = "movement"
    removes = "structures"
    group = "structures by gradients"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, MovementCurve(budget))


class MovementCurve(BudgetCurve):
    """Scores every step, cuts at every event (a `baselines.method.Shrinker`).

    Attributes:
        scores: attention module or FFN pair -> float64 (structures,), S of those that are left.
        steps: optimizer steps whose gradients the scores hold.
        finished: the target is reached.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.scores: dict[str, Tensor] = {}
        self.steps, self._full_size = 0, 0

    def start(self, model: nn.Module) -> None:
        """Begin with a whole model.

        Raises:
            ConfigError: the target cannot be reached with this model.
        """
        removable(model, self.config.target_size, self.config.target_scope)
        self._full_size = parameters(model, self.config.target_scope)
        self.scores = {}
        self.steps, self.finished = 0, self._target >= self._full_size
        self.history[:] = [size_entry(0, model)]
        self._bind(model)

    def _meet(self, model: nn.Module) -> None:
        if not self._full_size:
            self.start(model)
            return
        found = structures(model)
        counts = {**found.heads, **found.channels}
        if self.scores and {name: len(score) for name, score in self.scores.items()} != counts:
            raise ValueError("the model's structures are not those of the saved state; load that checkpoint's model")
        self._bind(model)

    def after_backward(self, state: TrainingState) -> None:
        """Add this step's w dL/dw, with the weights that the gradient belongs to."""
        self.attach(state.model)
        if self.finished:
            return
        moved = movement(state.model, self._axes)
        # a sum is finite if and only if all its terms are: one number is fetched per step, not all scores
        first = next(iter(moved.values()))
        if not bool(torch.stack([value.sum().to(first.device) for value in moved.values()]).isfinite().all()):
            message = f"step {state.step}: a gradient is NaN or infinite; the scores leave this step out"
            warnings.warn(message, SkippedEventWarning, stacklevel=2)
            return
        for name, value in moved.items():
            self.scores[name] = value + self.scores[name].to(value.device) if name in self.scores else value
        self.steps += 1

    def after_step(self, state: TrainingState) -> None:
        """Cut what scores lowest, if an event is due; one that was missed at the end of the curve is made up for."""
        self.attach(state.model)
        if not self.due(state.step):
            return
        if not self.steps:
            message = f"step {state.step}: no gradient was seen yet, so nothing was cut; call after_backward() first"
            warnings.warn(message, SkippedEventWarning, stacklevel=2)
            return
        self._shrink(state)
        self.finished = self._schedule.must_land(state.step)

    def finish(self, state: TrainingState) -> None:
        """Nothing is left to do: the model is an ordinary dense one."""

    def removed(self, model: nn.Module) -> int:
        """Nothing is masked."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state; Python writes a float so that reading gives the same float."""
        return {
            "history": [dict(entry) for entry in self.history],
            "full_size": self._full_size,
            "finished": self.finished,
            "steps": self.steps,
            "scores": {name: score.tolist() for name, score in self.scores.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; `attach` or the next hook brings the model."""
        super().load_state_dict(state)
        self._full_size, self.steps = int(state["full_size"]), int(state["steps"])
        self.scores = {
            name: torch.tensor(score, dtype=torch.float64, device="cpu") for name, score in state["scores"].items()
        }

    @property
    def _target(self) -> int:
        return round(self.config.target_size * self._full_size)

    def _bind(self, model: nn.Module) -> None:
        self._model, self._axes = model, structure_axes(model)
        self._schedule = Schedule(self.config, self._full_size, self._target)

    def _shrink(self, state: TrainingState) -> None:
        model, heads = state.model, structures(state.model).heads
        size, goal = parameters(model, self.config.target_scope), self._schedule.goal(state.step)
        of_heads = {name: score for name, score in self.scores.items() if name in heads}
        of_channels = {name: score for name, score in self.scores.items() if name not in heads}
        now, in_the_end = (choose(model, of_heads, of_channels, max(0, size - to)) for to in (goal, self._target))
        kept = Kept(union(now.heads, in_the_end.heads), union(now.channels, in_the_end.channels))
        stays = {**kept.heads, **kept.channels}
        if not stays:
            return
        cut(model, kept, state.optimizer)
        for name, numbers in stays.items():  # the scores of survivors move to their new numbers
            self.scores[name] = self.scores[name][numbers.to(self.scores[name].device)]
        self._axes = structure_axes(model)
        self.history.append(size_entry(state.step, model))


def union(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stays when only that goes which both remove; ascending numbers of the layers that both change."""
    both = {name: torch.cat([one[name], other[name]]).unique() for name in one.keys() & other.keys()}
    return {name: both[name] for name in one if name in both}


@torch.no_grad()
def movement(model: nn.Module, axes: Mapping[str, list[StructureAxis]]) -> dict[str, Tensor]:
    """How far a small gradient step pushes every structure away from zero.

    - sum over the entries w of its matrices of w dL/dw

    Args:
        model: its parameters' `.grad` is read.
        axes: of `structure_axes`.

    Returns:
        Attention module or FFN pair -> float64 (structures,) on the device of its weights.

    Raises:
        RuntimeError: a matrix has no gradient.

    Source: arXiv 2005.07683, section 4, summed over blocks as in arXiv 2109.04838.
    """
    products: dict[str, Tensor] = {}  # of a fused weight once
    moved = {}
    for name, parts in axes.items():
        for part in parts:
            if part.matrix and part.parameter not in products:
                products[part.parameter] = _product(part.parameter, model.get_parameter(part.parameter), part.axis)
        moved[name] = -torch.stack([per_structure(products[p.parameter], p) for p in parts if p.matrix]).sum(0)
    return moved


def _product(name: str, parameter: Tensor, axis: int) -> Tensor:
    """(entries of the axis,), sum of w dL/dw over the other axis; half precision would round the products."""
    if parameter.grad is None:
        raise RuntimeError(
            f"{name} has no gradient; call after backward() and before zero_grad(), and leave every matrix trainable"
        )
    wide = torch.promote_types(parameter.dtype, torch.float32)
    return along(parameter.to(wide) * parameter.grad.to(wide), axis)
