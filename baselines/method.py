"""Contract of a training method: the hooks that an experiment calls, and the budget that methods of a comparison share.

The paper compares methods at one final size only. Here every method gets the same budget: the same target, the same
steps and the same size over steps, because a model that stays large for longer learns more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import nn

import ecospa
from baselines.calibration import Calibration, as_calibration
from baselines.effective import effective_parameters
from baselines.masks import Masks
from ecospa import ConfigError, EcoSpaConfig, UnsupportedModelError, WidthRule, coupled_pairs
from ecospa.accounting import parameters
from ecospa.config import Curve, Pace, TargetScope
from ecospa.families import family_of, transformer_blocks

SUITE_FAMILIES = frozenset({"bert", "gpt2", "llama", "timm_vit", "vit"})
"""Family files of ecospa that the experiments train: what a method is tested on, and defined for by default."""

Removes = Literal["structures", "zeros", "nothing"]

HistoryEntry = dict[str, Any]
"""{"step", "parameters", "block_parameters", "widths"} of the model after an event; the first entry is step 0."""


@dataclass(frozen=True)
class Budget:
    """Final size, schedule and pace: the same for every method of a comparison.

    Attributes:
        target_size: share of the parameters in `target_scope` that is left at the end, in (0, 1]; None for a method
            that does not shrink.
        total_steps: optimizer steps of the whole run.
        start_step: optimizer steps before the first event.
        end_step: optimizer step at which the target is reached, in (start_step, total_steps].
        interval: optimizer steps between two events.
        curve: size over steps, "cubic" or "linear" (ecospa.schedule.Schedule).
        target_scope: "blocks" counts what lies inside the transformer blocks, "parameters" the whole model.
        width_multiple: widths stay multiples of this, or by kind of pair of those of a rule, or of a mapping of its
            fields.
        top_k: K, share of the pairs that one event cuts.
        importance_threshold: theta, share of a pair's scores that one cut keeps.
        seed: decides every random choice of a method.
        learning_rate: peak rate of the experiment's AdamW, for methods that build an optimizer of their own.
        weight_decay: of the experiment's AdamW, likewise.
        widths: width of every pair, for a control that has a given shape; None where the target decides.

    Raises:
        ConfigError: a field is outside its range.
    """

    target_size: float | None
    total_steps: int
    start_step: int
    end_step: int
    interval: int
    curve: Curve = "cubic"
    target_scope: TargetScope = "blocks"
    width_multiple: int | WidthRule | Mapping[str, Any] = 8
    top_k: float = 0.30
    importance_threshold: float = 0.90
    seed: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        for name, least in (("total_steps", 1), ("start_step", 0), ("end_step", 1), ("interval", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is {value!r}; it must be a number of at least 0")
        self._config(1.0 if self.target_size is None else self.target_size, "curve")
        if self.end_step > self.total_steps:
            raise ConfigError(
                f"end_step is {self.end_step}; it must lie in ({self.start_step}, {self.total_steps}], "
                "or the run ends before the target is reached"
            )

    @property
    def rule(self) -> WidthRule:
        """Multiples of widths by kind of pair."""
        multiple = self._config(1.0, "curve").width_multiple
        return multiple if isinstance(multiple, WidthRule) else WidthRule.uniform(int(multiple))

    def config(self, pace: Pace = "curve") -> EcoSpaConfig:
        """The budget as a configuration of the method.

        Args:
            pace: "curve" follows the size curve; "paper" leaves the pace to K, theta and the interval, without an end.

        Raises:
            ConfigError: the budget has no target.
        """
        if self.target_size is None:
            raise ConfigError("target_size is None; a method that shrinks needs a share in (0, 1], such as 0.5")
        return self._config(self.target_size, pace)

    def _config(self, target_size: float, pace: Pace) -> EcoSpaConfig:
        return EcoSpaConfig(
            top_k=self.top_k,
            importance_threshold=self.importance_threshold,
            target_size=target_size,
            target_scope=self.target_scope,
            interval=self.interval,
            start_step=self.start_step,
            end_step=self.end_step if pace == "curve" else None,
            pace=pace,
            curve=self.curve,
            width_multiple=self.width_multiple,  # type: ignore[arg-type]  # it takes a mapping, too
        )


@dataclass
class TrainingState:
    """State of the training that a hook sees.

    Attributes:
        model: the model that is trained, unwrapped.
        optimizer: its optimizer; an accelerate wrapper is fine.
        step: optimizer steps completed: in `after_backward` those before the coming one, in `after_step` with it.
        total_steps: optimizer steps of the whole run.
        calibration: given to `finish` again, because a resumed run has not called `prepare`.
    """

    model: nn.Module
    optimizer: Any
    step: int
    total_steps: int
    calibration: Any = None


class Shrinker(Protocol):
    """Component that makes a model smaller during a run; most methods share it and hand it to `TrainingMethod`.

    One that builds modules of its own has `save(model, folder)` and `load(folder, dense)` as well, and one that masks
    has `masks`, a baselines.masks.Masks or None.
    """

    history: list[HistoryEntry]

    def start(self, model: nn.Module) -> None:
        """Look at the dense model before the first step; refuse an unreachable target."""

    def attach(self, model: nn.Module) -> None:
        """Meet the model that will be trained: at once after `start`, or that of the checkpoint after a resume."""

    def after_backward(self, state: TrainingState) -> None:
        """Read the gradients of a step."""

    def after_step(self, state: TrainingState) -> None:
        """Shrink, if an event is due."""

    def finish(self, state: TrainingState) -> None:
        """Let go of the model."""

    def removed(self, model: nn.Module) -> int:
        """Entries that the model still stores but that are gone for good: zero and untrained."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; `attach` or the next hook brings the model."""


class TrainingMethod:
    """A method: a name and some hooks. Everything does nothing until a subclass or a `shrinker` gives it a meaning.

    A fresh run calls `prepare` once. A resumed run builds the method anew and calls `load_state_dict` and then `load`
    instead. Either then calls `build_optimizer`, and trains.

    Args:
        budget: what the method has to keep to.
        shrinker: does the work of the hooks; None leaves the model as it is.

    Attributes:
        name: how records and the command line call the method.
        title: how tables and plots call it; empty for its name.
        removes: "structures", so that the model gets smaller, "zeros", which stay stored, or "nothing".
        group: of methods that belong together in tables.
        stage: "training" methods shrink while they train; "one-shot" ones cut a trained model in `finish`.
        architectures: family files of ecospa that the method is defined for; the others are refused.
        reads_gradients: whether `after_backward` looks at them; a comparison without training then spares the passes.
        needs_calibration: whether `prepare` refuses to go on without data.
        masks: entries that are zero for good but stored; None for a method that masks nothing.
        calibration: what `prepare` or `finish` was given, or None.
        history: {"step", "parameters", "block_parameters", "widths"} at the start and after every event that cut;
            parameters that are stored but masked do not count.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    removes: ClassVar[Removes] = "structures"
    group: ClassVar[str] = "custom"
    stage: ClassVar[Literal["training", "one-shot"]] = "training"
    architectures: ClassVar[frozenset[str]] = SUITE_FAMILIES
    needs_calibration: ClassVar[bool] = False
    reads_gradients: ClassVar[bool] = True

    def __init__(self, budget: Budget, shrinker: Shrinker | None = None) -> None:
        self.budget = budget
        self.shrinker = shrinker
        self.masks: Masks | None = getattr(shrinker, "masks", None)
        self.calibration: Calibration | None = None
        self.history: list[HistoryEntry] = [] if shrinker is None else shrinker.history

    def prepare(self, model: nn.Module, calibration: Any = None) -> nn.Module | None:
        """Look at the model before the first step.

        Args:
            model: the dense model, freshly initialised or pre-trained, on its device.
            calibration: batches of the training data, for methods that need activations; None if there are none.

        Returns:
            The model to train instead, or None to train this one.

        Raises:
            ConfigError: the budget's target cannot be reached with this model, or data is needed and not given.
            UnsupportedModelError: the method is not defined for this architecture.
        """
        self.accept(model, calibration)
        if self.shrinker is not None:
            self.shrinker.start(model)
        else:
            self.history[:] = [size_entry(0, model)]
        return None

    @classmethod
    def only_size(cls, model: nn.Module, scope: TargetScope) -> float | None:
        """The one target_size that the method can give this model, or None where it can give many."""
        return None

    def accept(self, model: nn.Module, calibration: Any) -> None:
        """Refuse an architecture that the method is not defined for, and missing data; keep the data.

        Raises:
            ConfigError: data is needed and not given.
            UnsupportedModelError: the method is not defined for this architecture.
        """
        if (kind := architecture(model)) not in self.architectures:
            defined = ", ".join(sorted(self.architectures))
            raise UnsupportedModelError(f"{self.name} is not defined for the {kind} family; it is for: {defined}")
        if calibration is not None or self.needs_calibration:
            try:
                self.calibration = as_calibration(calibration)
            except ConfigError as error:
                raise ConfigError(f"{self.name}: {error}") from error

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer | None:
        """Called once in every run, fresh or resumed, with the model that will be trained, before its first step.

        Returns:
            An optimizer of the method's own, or None for the experiment's.
        """
        if self.shrinker is not None:
            self.shrinker.attach(model)
        return None

    def after_backward(self, state: TrainingState) -> None:
        """Called with the gradients of a step, before the optimizer uses them."""
        if self.shrinker is not None:
            self.shrinker.after_backward(state)

    def after_step(self, state: TrainingState) -> None:
        """Called when the optimizer has done a step."""
        if self.shrinker is not None:
            self.shrinker.after_step(state)

    def finish(self, state: TrainingState) -> None:
        """Called once after the last step."""
        if state.calibration is not None:
            self.calibration = as_calibration(state.calibration)
        if self.shrinker is not None:
            self.shrinker.finish(state)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the model as it is now, during the run or after `finish`, to a folder."""
        getattr(self.shrinker, "save", ecospa.save_pretrained)(model, folder)

    def load(self, folder: Path, dense: nn.Module) -> nn.Module:
        """Read what `save` wrote.

        Args:
            folder: where.
            dense: the experiment's dense model, freshly built, for methods that rebuild its modules; it may be
                changed and returned.
        """
        if self.shrinker is not None and hasattr(self.shrinker, "load"):
            rebuilt: nn.Module = self.shrinker.load(folder, dense)
            return rebuilt
        # a class of the suite's own is not known to transformers, which could not build it from its name
        custom = hasattr(dense, "config") and not type(dense).__module__.startswith("transformers.")
        loaded: nn.Module = ecospa.from_pretrained(folder, dense if custom else None)
        return loaded

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state to resume from, in addition to the checkpoint of model and optimizer."""
        return (
            {"history": [dict(entry) for entry in self.history]}
            if self.shrinker is None
            else self.shrinker.state_dict()
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a run from `state_dict`."""
        if self.shrinker is None:
            self.history[:] = [dict(entry) for entry in state["history"]]
        else:
            self.shrinker.load_state_dict(state)

    def nonzero_parameters(self, model: nn.Module) -> tuple[int, int]:
        """Parameters that are not masked: of the whole model, and of its blocks; a live weight of value zero counts."""
        removed = 0 if self.shrinker is None else self.shrinker.removed(model)
        return parameters(model) - removed, parameters(model, "blocks") - removed

    def effective_parameters(self, model: nn.Module) -> tuple[int, int]:
        """Parameters that can have an effect, of the whole model and of its blocks.

        That is what is not masked, less what masks cut off from input or output (baselines.effective).
        """
        if self.masks is None:
            return self.nonzero_parameters(model)
        return effective_parameters(model, self.masks.removed)


def check_reachable(target_size: float, scope: TargetScope, full: int, least: int) -> None:
    """Refuse a target below what a method can come down to.

    Args:
        target_size: share of the parameters in the scope.
        scope: "blocks" or "parameters".
        full: parameters of the whole model in the scope.
        least: parameters that would stay at least.

    Raises:
        ConfigError: the target is out of reach.
    """
    if round(target_size * full) < least:
        raise ConfigError(
            f"target_size is {target_size}; the smallest reachable value is {least / full:.4f} of the {scope}; "
            "raise target_size, or count target_scope='blocks'"
        )


def architecture(model: nn.Module) -> str:
    """The file of `ecospa/families` that knows the blocks of a model, such as "gpt2" or "timm_vit".

    Raises:
        UnsupportedModelError: no family does.
    """
    for block in transformer_blocks(model).values():
        family = family_of(block)
        assert family is not None  # transformer_blocks() holds known blocks only
        return family.find.__module__.rpartition(".")[2]
    coupled_pairs(model)  # says what is wrong and how to go on
    raise UnsupportedModelError(f"{type(model).__name__} has no transformer block")


def size_entry(step: int, model: nn.Module, removed: int = 0, widths: Mapping[str, int] | None = None) -> HistoryEntry:
    """One entry of a history.

    Args:
        step: optimizer steps completed.
        model: the model now.
        removed: entries of its blocks that are masked.
        widths: width per pair; None reads them from the model's shapes, if its blocks are still built of pairs.
    """
    by_pair = _widths(model) if widths is None else dict(widths)
    stored, blocks = parameters(model), parameters(model, "blocks")
    return {"step": step, "parameters": stored - removed, "block_parameters": blocks - removed, "widths": by_pair}


def _widths(model: nn.Module) -> dict[str, int]:
    """Width per pair; none where a method has rebuilt the blocks, with adapters, factors or shortcuts."""
    try:
        return {pair.name: pair.width for pair in coupled_pairs(model)}
    except UnsupportedModelError:
        return {}
