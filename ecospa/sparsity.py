"""CoupledSparsity: estimator, sparsifier and schedule behind two calls in a plain training loop (paper, training loop).

sparsity = ecospa.CoupledSparsity(model, optimizer, config)
loss.backward(); sparsity.after_backward(); optimizer.step(); sparsity.after_step(); optimizer.zero_grad()
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ecospa.accounting import parameters
from ecospa.config import ConfigError, EcoSpaConfig
from ecospa.estimator import CoupledEstimator
from ecospa.families import coupled_pairs
from ecospa.optimizer_state import OptimizerStateError, check_optimizers
from ecospa.optimizers import held_parameters, names_of
from ecospa.plan import SparsityPlan
from ecospa.schedule import Schedule
from ecospa.sparsifier import CoupledSparsifier
from ecospa.surgery import apply_plan
from ecospa.width_rule import WidthRule

logger = logging.getLogger(__name__)


class SkippedEventWarning(RuntimeWarning):
    """An event was due and nothing was cut: the gradients since the last one were not finite, or there were none."""


@dataclass(frozen=True)
class ShrinkEvent:
    """The model after one event.

    Attributes:
        step: optimizer steps done.
        parameters: all parameters.
        block_parameters: parameters inside the transformer blocks.
        widths: width of every pair.
    """

    step: int
    parameters: int
    block_parameters: int
    widths: Mapping[str, int]


class CoupledSparsity:
    """Shrinks a model while it trains.

    Args:
        model: model of a supported family, on its device.
        optimizer: optimizer that holds the model's parameters, or a list of those that share them.
        config: the method's configuration.
        followers: models to cut alike, such as moving averages.
        on_cut: called with the ShrinkEvent after every cut, for progress.
        resume: state of an interrupted run, as `state_dict` gave it, for a model that was loaded at its widths.

    Raises:
        ConfigError: the target cannot be reached with this model, or a field is out of range.
        UnsupportedModelError: the model cannot be cut.
        OptimizerStateError: the optimizer does not hold the model's parameters.

    Attributes:
        history: a ShrinkEvent for the start and for every event that cut.
        step: optimizer steps done.
        finished: the target is reached, or nothing can be cut any more.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        config: EcoSpaConfig,
        followers: Iterable[nn.Module] = (),
        on_cut: Callable[[ShrinkEvent], None] | None = None,
        resume: Mapping[str, Any] | None = None,
    ) -> None:
        check_one_process()
        self.config, self.model, self.optimizer = config, model, optimizer
        self.followers, self._on_cut = tuple(followers), on_cut
        saved = {} if resume is None else resume["sparsifier"]
        rule = WidthRule(**saved["rule"]) if "rule" in saved else None
        self.sparsifier = CoupledSparsifier(model, config, saved.get("full_size"), rule)
        check_optimizer_holds(model, optimizer)
        self.estimator = CoupledEstimator(model, coupled_pairs(model), config.estimator, optimizer)
        self.schedule = Schedule(config, self.sparsifier.full_size, self.sparsifier.target_size)
        self.step, self.finished = 0, self.sparsifier.landed(model)
        self.history = [self._event()]
        self._next = self._next_event(0)
        if resume is not None:
            self.load_state_dict(resume)

    @property
    def next_event(self) -> int | None:
        """Optimizer step of the next event, or None when there is none."""
        return None if self.finished else self._next

    def after_backward(self) -> None:
        """Call after backward() and before the gradients are cleared: adds this step to the importance estimate."""
        if not self.finished and self.step >= self.config.start_step:
            self.estimator.update()

    def after_step(self) -> None:
        """Call after optimizer.step(): counts the step, and shrinks the model when an event is due."""
        self.step += 1
        if self.finished or self.step < self._next:
            return
        self._shrink()
        self._next = self._next_event(self.step)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state; the widths themselves are in the model's checkpoint."""
        return {
            "step": self.step,
            "next": self._next,
            "finished": self.finished,
            "sparsifier": self.sparsifier.state_dict(),
            "estimator": self.estimator.state_dict(),
            "history": [asdict(event) for event in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a run whose (already smaller) model and optimizer state have been loaded.

        Raises:
            ValueError: the model's widths are not those of the state.
        """
        history = [ShrinkEvent(**event) for event in state["history"]]
        now = {pair.name: pair.width for pair in coupled_pairs(self.model)}
        if dict(history[-1].widths) != now:
            raise ValueError(
                "the model's widths are not those of the saved state; load the model with ecospa.from_pretrained from "
                "the same checkpoint first"
            )
        self.history, self.step, self._next = history, int(state["step"]), int(state["next"])
        self.finished = bool(state["finished"])
        self.sparsifier.load_state_dict(state["sparsifier"])
        self.estimator.load_state_dict(state["estimator"])
        self.schedule = Schedule(self.config, self.sparsifier.full_size, self.sparsifier.target_size)

    def _next_event(self, step: int) -> int:
        if self.config.pace == "paper":
            return self.schedule.next_event(step, self.sparsifier.size(self.model), len(self.history) - 1)
        following = step + 1
        while not self.schedule.due(following) and following < (self.config.end_step or following):
            following += 1
        return following

    def _shrink(self) -> None:
        if self.estimator.steps == 0:
            # loss scaling may have skipped every step of a short window; that must not end a long run
            message = (
                f"step {self.step}: no gradient was seen since the last event, so nothing was cut; "
                "call after_backward() before every after_step(), unless loss scaling skipped the steps"
            )
            warnings.warn(message, SkippedEventWarning, stacklevel=3)
            return
        importances = self.estimator.importances()
        broken = [name for name, value in importances.items() if not math.isfinite(value)]
        self.estimator.reset()
        if broken:
            message = (
                f"step {self.step}: the gradients of {broken[0]} since the last event are NaN or infinite; "
                "nothing was cut, the next event will use new gradients"
            )
            warnings.warn(message, SkippedEventWarning, stacklevel=3)
            return
        plan = self.sparsifier.plan(self.model, importances, goal=self._goal())
        if plan is not None:
            self._apply(plan)
        if self.sparsifier.landed(self.model):
            self.finished = True
            floor = self.sparsifier.exhausted(self.model)
            reason = "every pair is at its floor, nothing is left to cut" if floor else "the target is reached"
            size, target = self.sparsifier.size(self.model), self.sparsifier.target_size
            level = logging.WARNING if floor else logging.INFO
            logger.log(
                level, "step %d: %s at %d parameters (target %d); training goes on", self.step, reason, size, target
            )

    def _goal(self) -> int | None:
        if self.schedule.must_land(self.step):
            return self.sparsifier.target_size
        return self.schedule.goal(self.step) if self.config.pace == "curve" else None

    def _apply(self, plan: SparsityPlan) -> None:
        apply_plan(self.model, plan, self.optimizer, self.followers)
        self.estimator.rebind(coupled_pairs(self.model))
        self.history.append(self._event())
        if self._on_cut is not None:
            self._on_cut(self.history[-1])

    def _event(self) -> ShrinkEvent:
        widths = {pair.name: pair.width for pair in coupled_pairs(self.model)}
        return ShrinkEvent(self.step, parameters(self.model), parameters(self.model, "blocks"), widths)


def check_one_process() -> None:
    """Refuse to run in one of several processes: each would cut by its own gradients and they would drift apart.

    Raises:
        ConfigError: torch.distributed runs with more than one process.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        if (world := torch.distributed.get_world_size()) > 1:
            raise ConfigError(f"world size is {world}; shrinking works in one process, start one")


def check_optimizer_holds(model: nn.Module, optimizer: Any) -> None:
    """Refuse an optimizer that does not train the model's coupled weights, before any step is lost.

    Raises:
        OptimizerStateError: names the first parameter that it does not hold, or why it cannot go on after a cut.
    """
    check_optimizers(model, optimizer)
    held = held_parameters(optimizer)
    for pair in coupled_pairs(model):
        for axis in pair.axes:
            parameter = model.get_parameter(axis.parameter)
            if parameter.requires_grad and id(parameter) not in held:
                raise OptimizerStateError(
                    f"{axis.parameter}: the {names_of(optimizer)} does not hold this parameter; build it from the "
                    "parameters of this very model"
                )
