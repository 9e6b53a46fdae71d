"""CoupledSparsity: estimator, sparsifier and schedule behind two calls in a plain training loop (paper, training loop).

sparsity = ecospa.CoupledSparsity(model, optimizer, config)
loss.backward(); sparsity.after_backward(); optimizer.step(); sparsity.after_step(); optimizer.zero_grad()
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ecospa.accounting import parameters
from ecospa.claim import Claim
from ecospa.config import EcoSpaConfig
from ecospa.estimator import EstimatorMaker, ImportanceEstimator, TiedImportanceWarning
from ecospa.estimator_choice import measures_of
from ecospa.families import coupled_pairs
from ecospa.frozen import told
from ecospa.gradient_window import GradientWindow
from ecospa.one_shot import asked
from ecospa.optimizer_state import check_held
from ecospa.pairs import CoupledPair, narrowed_pairs
from ecospa.plan import PlanError, SparsityPlan
from ecospa.ranking import ranking
from ecospa.resume import check_estimator, config_changes, report_changes
from ecospa.schedule import Schedule
from ecospa.sparsifier import CoupledSparsifier, Scorer
from ecospa.step_counter import StepCounter
from ecospa.surgery import apply_plan
from ecospa.width_rule import WidthRule
from ecospa.wrappers import check_one_process, original_name, refuse_unsupported, unwrapped

logger = logging.getLogger(__name__)


class TargetNotReachedWarning(UserWarning):
    """A run ended above its target, or is about to: the message says what was asked for, what came of it, and why."""


class SkippedEventWarning(RuntimeWarning):
    """An event was due and nothing was cut: there were no gradients since the last one, or none that rank pairs."""


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

    What counts is what the optimizer does: after_step() may be called for every micro-batch, and a step that loss
    scaling skips is no step. Of several after_backward() calls before one optimizer step the last one counts, whose
    gradients are the accumulated ones. An optimizer that tells of no steps (no torch.optim.Optimizer, or one whose
    `step` was replaced) is taken to step before every after_step().

    Pairs with a frozen matrix stay whole. An event that fails leaves the model as it was and is over: the next one
    comes when the schedule has it, with the gradients of both.

    Args:
        model: model of a supported family, on its device; `torch.compile` may stand around it or its blocks.
        optimizer: optimizer that holds the model's parameters, or a list of those that share them.
        config: the method's configuration.
        followers: models to cut alike, such as moving averages.
        on_cut: called with the ShrinkEvent after every cut, when everything else is done, for progress.
        resume: state of an interrupted run, as `state_dict` gave it, for a model that was loaded at its widths.
        estimator: importance of pairs, an `ImportanceEstimator` or what makes one from model and pairs (its class);
            None is the CoupledEstimator that `config.estimator` says.
        scorer: index scores inside a pair, asked at every event; None takes the norm products of the weights.

    Raises:
        ConfigError: the target cannot be reached with this model, a field is out of range, another CoupledSparsity is
            at work on the model, or the run that is resumed had another estimator, or another value of a field that
            cannot change (ecospa.resume).
        UnsupportedModelError: the model cannot be cut, or not where it is (sharded, replicated, offloaded).
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
        *,
        estimator: ImportanceEstimator | EstimatorMaker | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        refuse_unsupported(model)
        check_one_process()
        if resume is not None:
            config_changes(resume, config)  # before anything is built by a configuration that cannot go on
        self.config, self.model, self.optimizer = config, unwrapped(model), optimizer
        self.followers, self._on_cut = tuple(followers), on_cut
        saved = {} if resume is None else resume["sparsifier"]
        rule = WidthRule(**saved["rule"]) if "rule" in saved else None
        pairs = coupled_pairs(self.model)
        self.sparsifier = CoupledSparsifier(self.model, config, saved.get("full_size"), rule, pairs=pairs)
        check_held(self.model, _parameter_names(pairs), optimizer)
        mine = self.sparsifier.pairs(self.model, pairs)
        self.estimator, self._scorer = measures_of(estimator, scorer, self.model, mine, config, optimizer)
        self.step, self.schedule = 0, self._scheduled()
        self.finished, self.history = self.sparsifier.landed(self.model, pairs), [self._event(pairs)]
        self._next, self._problem, self._skipped, self._closed = self._next_event(0), "", 0, False
        self._shapes = self._current_shapes(pairs)
        self._counter = StepCounter(optimizer)
        self._window = GradientWindow(self.estimator, self._counter)
        self._claim: Claim | None = None
        try:
            self._introduce(pairs) if resume is None else self.load_state_dict(resume)
            if not self.finished:
                self._claim = Claim(self.model.get_submodule(pair.module) for pair in pairs)
        except BaseException:
            self._counter.close()
            raise

    @property
    def next_event(self) -> int | None:
        """Optimizer step of the next event, or None when there is none."""
        return None if self.finished else self._next

    @property
    def reached(self) -> bool:
        """True when the size is within one width step of the target."""
        if not self.finished:
            return False
        over = self.sparsifier.size(self.model) > self.sparsifier.target_size
        return not (over and self.sparsifier.exhausted(self.model))  # floors and frozen pairs may keep it above

    def after_backward(self, step: int | None = None) -> None:
        """Call after backward() and before the gradients are cleared: they rank the pairs once the optimizer steps.

        Args:
            step: optimizer steps done before the coming one, from a loop that counts them; None asks the optimizer.

        Raises:
            PlanError: the model was cut by hand since the last event.
            RuntimeError: no coupled matrix has a gradient.
        """
        if self.finished:
            return
        self._check_usable()
        if (self.step + self._counter.waiting if step is None else step) >= self.config.start_step:
            self._window.measure()

    def after_step(self, step: int | None = None) -> None:
        """Call after optimizer.step(): counts the steps that were taken, and shrinks the model when an event is due.

        Args:
            step: optimizer steps done, from a loop that counts them; None asks the optimizer.

        Raises:
            PlanError: the model was cut by hand since the last event.
        """
        if not self.finished:
            self._check_usable()
        steps = self._counter.read()
        steps = steps if step is None else step - self.step
        self.step += steps
        if self.finished or steps == 0:
            return
        self._window.commit()
        if self.step < self._next:
            return
        try:
            event = self._shrink()
        finally:  # whatever failed, this event is over
            self._next = self._next_event(self.step)
        if event is not None and self._on_cut is not None:
            self._on_cut(event)

    def absorb_cut(self) -> None:
        """Go on from a cut made by hand: a new window of gradients begins, and the cut is an event of the history.

        The target stays what it was.
        """
        pairs = coupled_pairs(self.model)
        self._settle(pairs)
        self._finish_when_landed(pairs)

    def report(self) -> str:
        """Summarize the run in one line: the target is reached, or what was asked for, what came of it, and why."""
        standing = self.sparsifier.standing(self.model)
        if self.reached:
            return f"step {self.step}: the target is reached: {standing}"
        return f"step {self.step}: the target is not reached: {standing}; {self._why_not()}"

    def close(self) -> None:
        """End the run: let go of the optimizer and the model, and warn when the target was not reached."""
        if self._closed:
            return
        self.release()
        if not self.reached:
            warnings.warn(self.report(), TargetNotReachedWarning, stacklevel=2)

    def release(self) -> None:
        """Let go of the optimizer and the model without a word, for another CoupledSparsity to take over."""
        self._closed = True
        self._counter.close()
        if self._claim is not None:
            self._claim.release()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state; the widths themselves are in the model's checkpoint."""
        waiting = {"waiting": self._counter.waiting} if self._counter.waiting else {}
        return {
            "config": asdict(self.config),
            "step": self.step,
            "next": self._next,
            "finished": self.finished,
            "sparsifier": self.sparsifier.state_dict(),
            "estimator_class": type(self.estimator).__name__,
            **self._window.state_dict(),
            **waiting,
            "history": [asdict(event) for event in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a run whose (already smaller) model and optimizer state have been loaded.

        Raises:
            ConfigError: the state is of a run with another estimator or configuration (ecospa.resume says what may
                differ).
            ValueError: the model's widths are not those of the state.
        """
        changes = config_changes(state, self.config)
        check_estimator(state, self.estimator)
        pairs = coupled_pairs(self.model)
        history = [ShrinkEvent(**event) for event in state["history"]]
        now = {pair.name: pair.width for pair in pairs}
        if {original_name(name): width for name, width in history[-1].widths.items()} != now:
            raise ValueError(
                "the model's widths are not those of the saved state; load the model with ecospa.from_pretrained from "
                "the same checkpoint first"
            )
        self.history, self.step, self._next = history, int(state["step"]), int(state["next"])
        self.finished = bool(state["finished"])
        self.sparsifier.load_state_dict(state["sparsifier"])
        self._counter.carry(int(state.get("waiting", 0)))
        self._window.load_state_dict(state)
        self.schedule, self._shapes = self._scheduled(), self._current_shapes(pairs)
        if changes:
            report_changes(changes, self.step)
            self._next = self._next_event(self.step)

    def _scheduled(self) -> Schedule:
        return Schedule(self.config, self.sparsifier.start_size, self.sparsifier.target_size)

    def _introduce(self, pairs: Sequence[CoupledPair]) -> None:
        mine = self.sparsifier.pairs(self.model, pairs)
        if frozen := {pair.name for pair in pairs} - {pair.name for pair in mine}:
            logger.warning("%s; the target has to come from the others", told(frozen, len(pairs)))
        if self.finished:
            level = logging.WARNING if self.sparsifier.size(self.model) < self.sparsifier.full_size else logging.INFO
            logger.log(level, "nothing to cut, the target is reached already: %s", self.sparsifier.standing(self.model))

    def _next_event(self, step: int) -> int:
        if self.config.pace == "paper":
            return self.schedule.next_event(step, self.sparsifier.size(self.model), len(self.history) - 1)
        return self.schedule.next_due(step)

    def _shrink(self) -> ShrinkEvent | None:
        pairs: Sequence[CoupledPair] = coupled_pairs(self.model)  # the pairs after a cut follow from the plan
        importances = self._importances(pairs)
        if not importances:
            return None
        before, plan = self.sparsifier.state_dict(), None
        try:
            scores = asked(self._scorer, self.model, self.sparsifier.pairs(self.model, pairs))
            plan = self.sparsifier.plan(self.model, importances, self._goal(), scores, pairs)
            if plan is not None:
                pairs = self._apply(plan, pairs)
        except BaseException:
            if not self._cut_since():
                self.sparsifier.load_state_dict(before)
            raise
        if plan is None:
            self._new_window(pairs)
        self._finish_when_landed(pairs)
        return None if plan is None else self.history[-1]

    def _importances(self, pairs: Sequence[CoupledPair]) -> Mapping[str, float]:
        """Importance of every pair that may be cut; none, and a warning, where they cannot be ranked."""
        names = [pair.name for pair in self.sparsifier.pairs(self.model, pairs)]
        found = ranking(self.estimator, names, self.config.top_k)
        if found.problem:
            self._new_window(pairs)
            self._skipped += 1
            if found.problem != self._problem:  # an event that is due stays due: once is enough
                warnings.warn(f"step {self.step}: {found.problem}", SkippedEventWarning, stacklevel=5)
        elif found.doubt:
            warnings.warn(found.doubt, TiedImportanceWarning, stacklevel=5)
        self._problem = found.problem
        return found.importances

    def _goal(self) -> int | None:
        if self.schedule.must_land(self.step):
            return self.sparsifier.target_size
        return self.schedule.goal(self.step) if self.config.pace == "curve" else None

    def _apply(self, plan: SparsityPlan, pairs: Sequence[CoupledPair]) -> Sequence[CoupledPair]:
        """Cut the model, and return its pairs after the cut."""
        after = None
        try:
            self._cut(plan, pairs)
            after = narrowed_pairs(pairs, plan.kept)
        finally:  # an interrupt may come after the cut as well as before it, and between two blocks
            if self._cut_since():
                self._settle(coupled_pairs(self.model) if after is None else after)
        return after

    def _cut(self, plan: SparsityPlan, pairs: Sequence[CoupledPair]) -> None:
        try:
            apply_plan(self.model, plan, self.optimizer, self.followers, pairs=pairs)
        except (MemoryError, torch.OutOfMemoryError):
            logger.warning("step %d: no memory for old and new weights together; cutting block by block", self.step)
            apply_plan(self.model, plan, self.optimizer, self.followers, by_block=True, pairs=pairs)

    def _settle(self, pairs: Sequence[CoupledPair]) -> None:
        """Take the model as a cut has left it."""
        self._shapes = self._current_shapes(pairs)
        self._new_window(pairs)
        self.history.append(self._event(pairs))

    def _new_window(self, pairs: Sequence[CoupledPair]) -> None:
        self._window.commit()
        self.estimator.rebind(self.sparsifier.pairs(self.model, pairs))

    def _finish_when_landed(self, pairs: Sequence[CoupledPair]) -> None:
        if not self.sparsifier.landed(self.model, pairs):
            return
        self.finished = True
        if self._claim is not None:
            self._claim.release()
        floor = self.sparsifier.exhausted(self.model, pairs)
        reason = "every pair is at its floor, nothing is left to cut" if floor else "the target is reached"
        size, target = self.sparsifier.size(self.model), self.sparsifier.target_size
        level = logging.WARNING if floor else logging.INFO
        logger.log(level, "step %d: %s at %d parameters (target %d); training goes on", self.step, reason, size, target)

    def _why_not(self) -> str:
        config, events = self.config, len(self.history) - 1
        skipped = f"; {self._skipped} events cut nothing, as was warned of" if self._skipped else ""
        if self.finished:
            return "every pair that trains is at its floor (min_width, min_share, width_multiple), nothing is left"
        if self._counter.seen == 0 and self.step == 0:
            return "no optimizer step was seen; give the optimizer that steps, and call after_step() after its step()"
        if self.step <= config.start_step:
            return f"training ended before start_step, which is {config.start_step}"
        if config.end_step is not None and self.step < config.end_step:
            return f"training ended before end_step, which is {config.end_step}{skipped}"
        return f"{events} events have cut, the next would come at step {self._next}{skipped}"

    def _event(self, pairs: Sequence[CoupledPair]) -> ShrinkEvent:
        widths = {pair.name: pair.width for pair in pairs}
        return ShrinkEvent(self.step, parameters(self.model), parameters(self.model, "blocks"), widths)

    def _current_shapes(self, pairs: Sequence[CoupledPair]) -> list[tuple[nn.Parameter, torch.Size]]:
        return [(one, one.shape) for one in map(self.model.get_parameter, _parameter_names(pairs))]

    def _cut_since(self) -> bool:
        return any(parameter.shape != shape for parameter, shape in self._shapes)

    def _check_usable(self) -> None:
        if self._closed:
            raise RuntimeError("this CoupledSparsity was closed; make a new one for another run")
        if self._cut_since():
            raise PlanError(
                "the model was cut since the last event by something else than this CoupledSparsity (apply_plan or "
                "keep_heads by hand?), so gradients and sizes no longer fit; call absorb_cut() right after such a cut"
            )


def _parameter_names(pairs: Sequence[CoupledPair]) -> dict[str, None]:
    return {axis.parameter: None for pair in pairs for axis in pair.axes}
