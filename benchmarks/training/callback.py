"""Drives a method's hooks from a transformers.Trainer, and measures the run on the way.

Gradients are there in `on_pre_optimizer_step` (clipped, averaged over micro-batches) and gone in `on_step_end`, where
shapes may change. Steps are timed with the method's own work in them, because that is what a user waits for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from baselines.method import TrainingState
from benchmarks.experiment import RunContext
from benchmarks.metrics.memory import peak_memory
from benchmarks.metrics.training_state import training_bytes
from benchmarks.specs.training import TrainingSpec
from benchmarks.training import checkpoint
from benchmarks.training.step_clock import StepClock

if TYPE_CHECKING:
    from baselines.calibration import Calibration
    from baselines.method import TrainingMethod

_REPORT_SECONDS = 0.5
_SAVE_SHARE = 20  # a checkpoint may take a twentieth of the time: of a large model it can take longer than 30 seconds
_LAST_SECONDS = 5.0  # before the run is ended, and twice as long as the last checkpoint took


class MethodCallback(TrainerCallback):
    """Calls a TrainingMethod at the right moments and keeps `progress`.

    Args:
        method: what is called.
        training: of the run.
        step_flops: model -> FLOPs of one training step, counted again whenever the model has changed its size.
        context: told how far the run is; says how often a checkpoint is due.
        progress: measurements so far, continued in place.
        data: calibration data, given to the method again at the end.
    """

    def __init__(
        self,
        method: TrainingMethod,
        training: TrainingSpec,
        step_flops: Callable[[nn.Module], int],
        context: RunContext,
        progress: checkpoint.Progress,
        data: Calibration | None = None,
    ) -> None:
        self.data = data
        self.method, self.training, self.context, self.progress = method, training, context, progress
        self._count_flops = step_flops
        self._began = self._asked = self._saved = time.monotonic()
        self._interval = context.checkpoint_seconds
        self._seconds_before = progress.seconds
        self._reported = -math.inf
        self._clock = StepClock(training.device)
        self._took = 0.0
        self._last_asked = False
        self._resized = False
        self._flops: tuple[int, int] = (-1, 0)  # (parameters, FLOPs of a step with so many)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of a step."""
        self.progress.run_flops += self._step_flops(kwargs["model"])
        self._clock.start()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the method read the gradients."""
        self.method.after_backward(self._state(state, kwargs))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Let the method cut, stop the clock, and ask for a checkpoint when one is due."""
        training_state = self._state(state, kwargs)
        if self._resized:  # counted once per size, after the optimizer has made its state and before a method cuts
            self._count_bytes(training_state)
        self.method.after_step(training_state)
        self._clock.stop()
        self._collect()
        now = time.monotonic()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self.context.progress(state.global_step, state.max_steps)
        # Only where the mean loss has just been logged: a resumed run then logs the same means.
        logged = state.global_step % args.logging_steps == 0
        due = now - self._saved >= self._interval or self._last_chance()
        if logged and state.global_step < state.max_steps and due:
            control.should_save = True
            self._asked = now
        return control

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop a run that has diverged: hours of NaN teach nothing.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        loss = (kwargs.get("logs") or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(f"step {state.global_step}: the training loss is {loss}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Complete the Trainer's checkpoint, and begin to wait for the next one."""
        self._collect(wait=True)
        self._clock.pause()
        self.progress.seconds = self._seconds_before + time.monotonic() - self._began
        self.progress.peak_memory = max(self.progress.peak_memory, peak_memory(self.training.device))
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        checkpoint.save(folder, kwargs["model"], self.method, self.progress)
        self._saved = time.monotonic()
        self._took = self._saved - self._asked
        if self.context.checkpoint_seconds > 0:
            self._interval = max(self.context.checkpoint_seconds, _SAVE_SHARE * self._took)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count what the last step left, and let the method finish."""
        self._collect(wait=True)
        training_state = self._state(state, kwargs)
        self._count_bytes(training_state)
        self.method.finish(training_state)

    def _collect(self, wait: bool = False) -> None:
        for taken in self._clock.finished(wait):
            self.progress.step_seconds.append(taken.step)
            self.progress.data_seconds += taken.gap

    def _last_chance(self) -> bool:
        """Return True once, when the run is about to be ended from outside."""
        if self._last_asked or time.time() < self.context.until - _LAST_SECONDS - 2 * self._took:
            return False
        self._last_asked = True
        return True

    def _state(self, state: TrainerState, kwargs: dict[str, Any]) -> TrainingState:
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])  # unwrap accelerate's
        return TrainingState(kwargs["model"], optimizer, state.global_step, self.training.steps, self.data)

    def _count_bytes(self, training_state: TrainingState) -> None:
        self._resized = False
        self.progress.training_bytes = training_bytes(training_state.model, training_state.optimizer)
        self.progress.training_bytes_peak = max(self.progress.training_bytes_peak, self.progress.training_bytes)

    def _step_flops(self, model: nn.Module) -> int:
        """FLOPs of a step, counted again only when the model has changed its size."""
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if parameters != self._flops[0]:
            self._flops = (parameters, self._count_flops(model))
            self._resized = True
        return self._flops[1]
