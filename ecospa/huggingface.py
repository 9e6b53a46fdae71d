"""EcoSpa in the Hugging Face training loop: a callback for any Trainer, and a Trainer that also resumes by itself.

The Trainer's own order is used: gradients are read when the optimizer has stepped, clipped and unscaled; the model is
cut when the step has ended and no gradient is alive.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from ecospa.config import ConfigError, EcoSpaConfig
from ecospa.estimator import EstimatorMaker, ImportanceEstimator
from ecospa.filling import fill
from ecospa.folders import replacing
from ecospa.health import LossWatch
from ecospa.manifest import CheckpointError, plain_files, write_manifest
from ecospa.memory_budget import MemoryBudget, check_limit
from ecospa.optimizers import names_of
from ecospa.outlook import outlook
from ecospa.resume import config_changes
from ecospa.saved_shape import model_shape
from ecospa.sparsifier import Scorer
from ecospa.sparsity import CoupledSparsity, ShrinkEvent, TargetNotReachedWarning
from ecospa.trainer_checkpoint import (
    SCALER,
    STATE,
    Checkpoint,
    check_resumed,
    chosen,
    distinct_weights,
    fingerprint,
    model_folder,
    rotate,
    saved_run,
    seal,
    whole,
)
from ecospa.wrappers import unwrapped

logger = logging.getLogger(__name__)


class EcoSpaCallback(TrainerCallback, ExportableState):
    """Coupled sparsity on any `transformers.Trainer`.

    With gradient accumulation the gradient that is squared is the mean over the micro-batches, and with clipping it is
    the clipped one: a common factor within a step, so the ranking inside it is unchanged. A target that the run will
    not reach is told when training begins, and one that it has not reached when it ends, as a TargetNotReachedWarning.

    Args:
        config: the method's configuration (a mapping of its fields is fine, as a restored callback gets it).
        estimator: importance of pairs, as for `CoupledSparsity`; checkpoints name its class and do not hold it.
        scorer: index scores inside a pair, as for `CoupledSparsity`.

    Attributes:
        sparsity: the running CoupledSparsity; None before training begins.
        watch: tells logged losses that do not recover from cuts (ecospa.health); another one may take its place.
        sealed: whether checkpoints get their manifest before they are in place, and not by this callback.

    Raises:
        ConfigError: at the start of training, when something that cannot work together is asked for.
    """

    def __init__(
        self,
        config: EcoSpaConfig | Mapping[str, Any],
        *,
        estimator: ImportanceEstimator | EstimatorMaker | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        self.config = config if isinstance(config, EcoSpaConfig) else EcoSpaConfig(**config)
        self.estimator, self.scorer = estimator, scorer
        self.sparsity: CoupledSparsity | None = None
        self.watch, self.sealed = LossWatch(), False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse what cannot work, bind to model and optimizer, continue from a checkpoint's state."""
        check_arguments(args)
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        if self.sparsity is not None:  # training begins again: a second train(), or a smaller batch size
            self.sparsity.release()
        resume = None
        if state.global_step > 0:
            resume = saved_run(state.stateful_callbacks, type(self).__name__, state.global_step)
            check_resumed(model, optimizer, resume)
        self.sparsity = CoupledSparsity(
            model, optimizer, self.config, on_cut=self._report, resume=resume,
            estimator=self.estimator, scorer=self.scorer,
        )  # fmt: skip
        if state.max_steps > 0 and (doubt := outlook(self.sparsity, state.max_steps)) is not None:
            try:
                warnings.warn(doubt, TargetNotReachedWarning, stacklevel=2)
            except TargetNotReachedWarning:  # turned into an error: nothing has begun
                self.sparsity.release()
                raise

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say whether the target was reached, with a warning where it was not, and let go of the optimizer."""
        if self.sparsity is not None:
            logger.info(self.sparsity.report())
            self.sparsity.close()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read the gradients of the step that was just taken; a step that loss scaling skipped has none to read."""
        if self.sparsity is not None and not getattr(kwargs.get("optimizer"), "step_was_skipped", False):
            self.sparsity.after_backward()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Shrink the model when an event is due."""
        if self.sparsity is not None:
            self.sparsity.after_step()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Watch the loss, and add size, mean widths and the next event to what the progress bar prints."""
        if self.sparsity is not None and isinstance(kwargs.get("logs"), dict):
            if "loss" in kwargs["logs"]:
                self.watch.observe(state.global_step, kwargs["logs"]["loss"])
            kwargs["logs"].update(progress(self.sparsity))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seal a checkpoint that a plain Trainer has written; EcoSpaTrainer does so before it deletes older ones."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if not self.sealed and self.sparsity is not None and args.should_save and folder.is_dir():
            seal(folder, self.sparsity.model, mark=False)

    def state(self) -> dict[str, Any]:
        """Return what a Trainer checkpoint stores of this callback."""
        saved = None
        if (running := self.sparsity) is not None:
            held = {"weights": fingerprint(running.model), "optimizer": names_of(running.optimizer)}
            saved = {**running.state_dict(), **held}
        return {
            "args": {"config": asdict(self.config)}, "attributes": {"saved_state": saved, "sealed": self.sealed}
        }  # fmt: skip

    def _report(self, event: ShrinkEvent) -> None:
        self.watch.cut(event)
        following = None if self.sparsity is None else self.sparsity.next_event
        ahead = "the last event" if following is None else f"next event at step {following}"
        logger.info(
            "step %d: %d parameters, %d in blocks, %s", event.step, event.parameters, event.block_parameters, ahead
        )


class EcoSpaTrainer(Trainer):
    """`transformers.Trainer` that shrinks its model, and resumes from its checkpoints with a dense model in hand.

    Args:
        ecospa_config: the method's configuration; everything else as for `transformers.Trainer`.
        memory_budget: bytes that a step may hold at once (ecospa.MemoryBudget); batches go through the model in parts
            that fit, and the steps stay those of the whole batches. Or what makes the MemoryBudget from model and
            optimizer, where it needs more than a limit. None: whole batches.
        estimator: importance of pairs, as for `CoupledSparsity`.
        scorer: index scores inside a pair, as for `CoupledSparsity`.

    Attributes:
        ecospa: the callback that shrinks the model.
        budget: what splits the batches; None before the first step, or without a budget.
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *,
        ecospa_config: EcoSpaConfig,
        memory_budget: int | Callable[[nn.Module, Any], MemoryBudget] | None = None,
        estimator: ImportanceEstimator | EstimatorMaker | None = None,
        scorer: Scorer | None = None,
        **kwargs: Any,
    ) -> None:
        if args is not None:
            check_arguments(args)
        self.ecospa = EcoSpaCallback(ecospa_config, estimator=estimator, scorer=scorer)
        self.ecospa.sealed = True
        self._resumed: Checkpoint | None = None
        self._attempts = 0
        self._side: Path | None = None
        # among the first callbacks, so that the one that prints comes after the one that adds to the log
        kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), self.ecospa]
        if memory_budget is not None and not callable(memory_budget):
            check_limit(memory_budget)
        self.memory_budget = memory_budget
        self._items: Any = None
        self.budget: MemoryBudget | None = None
        super().__init__(model, args, **kwargs)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward pass, or several that fit the memory budget and add up to the same gradients.

        Raises:
            ConfigError: the budget cannot be kept, or the losses of parts do not add up to that of the batch.
        """
        if self.memory_budget is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.train()
        self._items = num_items_in_batch
        if self.budget is None:
            self.budget = self._new_budget(model)
        losses = []
        for part, share in self.budget.split(self._prepare_inputs(inputs)):
            with self._weighed(share):
                losses.append(super().training_step(model, part, num_items_in_batch))
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _new_budget(self, model: nn.Module) -> MemoryBudget:
        plain = unwrapped(self.accelerator.unwrap_model(model))
        if callable(self.memory_budget):
            budget = self.memory_budget(plain, self.optimizer)
        else:
            assert self.memory_budget is not None
            mixed = self.args.bf16 or self.args.fp16
            budget = MemoryBudget(self.memory_budget, plain, self.optimizer, mixed)
        budget.follow(self._loss_of_part)
        return budget

    def _loss_of_part(self, model: nn.Module, part: Mapping[str, Any]) -> Tensor:
        """The loss as the Trainer computes it: with label smoothing, a function or a subclass of the user's own."""
        items = self._items
        if isinstance(items, Tensor) and next(model.parameters()).is_meta:
            items = torch.empty_like(items, device="meta")
        with self.compute_loss_context_manager():
            return cast(Tensor, self.compute_loss(model, dict(part), num_items_in_batch=items))

    @contextmanager
    def _weighed(self, share: float) -> Iterator[None]:
        """Every loss as its share of the batch, whichever class computes it."""
        if share == 1:
            yield
            return
        own, compute_loss = vars(self).get("compute_loss"), self.compute_loss

        def weighed(*args: Any, **kwargs: Any) -> Any:
            result: Any = compute_loss(*args, **kwargs)
            return (result[0] * share, *result[1:]) if isinstance(result, tuple) else result * share

        self.compute_loss = weighed  # type: ignore[method-assign]
        try:
            yield
        finally:
            vars(self).pop("compute_loss")
            if own is not None:
                self.compute_loss = own  # type: ignore[method-assign]

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as `transformers.Trainer` does; a checkpoint is verified before anything is loaded from it.

        Args:
            resume_from_checkpoint: a folder, or True for the newest whole checkpoint in `output_dir`.
            args: as for `transformers.Trainer.train`.
            kwargs: as for `transformers.Trainer.train`.

        Raises:
            CheckpointError: the checkpoint is damaged or of another model, or there is no whole one.
            ConfigError: it was written without EcoSpa, or with a configuration that cannot change (ecospa.resume).
        """
        self._resumed, self._attempts = chosen(resume_from_checkpoint, str(self.args.output_dir)), 0
        resume = None if self._resumed is None else str(self._resumed.folder)
        return super().train(resume, *args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder, checkpoint = Path(resume_from_checkpoint), self._resumed
        if checkpoint is None or checkpoint.folder != folder:
            checkpoint = whole(folder)
        step = checkpoint.state["global_step"]
        run = saved_run(checkpoint.state["stateful_callbacks"], type(self.ecospa).__name__, step)
        config_changes(run, self.ecospa.config)
        scaled, scales = (folder / SCALER).is_file(), getattr(self.accelerator, "scaler", None) is not None
        if scaled != scales:
            raise CheckpointError(
                f"{folder}: it was written {'with' if scaled else 'without'} loss scaling ({SCALER}), and the run that "
                f"resumes works {'with' if scales else 'without'} it; resume with fp16={scaled}"
            )
        fill(self._own_model() if model is None else model, folder, checkpoint.manifest, checkpoint.shape)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        self._attempts += 1
        if checkpoint is not None and self._attempts > 1:
            # a smaller batch is tried: optimizer, scheduler and step start from the checkpoint again, so must weights
            try:
                self._load_from_checkpoint(checkpoint)
            except CheckpointError as error:
                raise CheckpointError(
                    f"memory ran out and auto_find_batch_size starts again from {checkpoint}, but the model has been "
                    f"cut since ({error}); build it again and resume with per_device_train_batch_size="
                    f"{self._train_batch_size}"
                ) from error
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_callback_state(self) -> None:
        handler: Any = self.callback_handler
        place = handler.callbacks.index(self.ecospa)
        super()._load_callback_state()
        if self.ecospa not in handler.callbacks:
            # restored from the checkpoint, with the configuration of then: ours reads that state by itself
            handler.callbacks = [one for one in handler.callbacks if type(one) is not type(self.ecospa)]
            handler.callbacks.insert(place, self.ecospa)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            # resumed at the very end: the Trainer itself would take one step too many
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._side) if self._side is not None else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        run_dir = Path(self._get_output_dir(trial))
        target, best = run_dir / f"checkpoint-{self.state.global_step}", self.state.best_model_checkpoint
        with replacing(target.resolve(), lambda name: True) as side:
            self._side = side
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._side = None
                if is_best := self.state.best_model_checkpoint != best:
                    self.state.best_model_checkpoint = best
            for path in (written := side / target.name).iterdir():
                path.rename(side / path.name)
            written.rmdir()
            if is_best:  # under the name that it is about to have
                self.state.best_model_checkpoint = str(target)
                self.state.save_to_json(str(side / STATE))
            seal(side, self._own_model())
        self._push_from_checkpoint(str(target))
        rotate(run_dir, self.args.save_total_limit, (target, self.state.best_model_checkpoint))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._side is None and self.args.push_to_hub:  # once it is in place
            super()._push_from_checkpoint(checkpoint_folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        target = Path(output_dir or str(self.args.output_dir))
        if self._side is not None:
            self._write(target, state_dict)
            return
        with model_folder(target) as side:
            self._write(side, state_dict)
            write_manifest(side, plain_files(side), model_shape(self._own_model()).as_json())

    def _own_model(self) -> nn.Module:
        return unwrapped(cast(nn.Module, self.model))

    def _write(self, folder: Path, state_dict: dict[str, Any] | None) -> None:
        if state_dict is None and not isinstance(self.model, PreTrainedModel):
            state_dict = distinct_weights(self._own_model())
        super()._save(str(folder), state_dict)


def check_arguments(args: TrainingArguments) -> None:
    """Refuse what cannot work together with shrinking, at the start and with the reason.

    Raises:
        ConfigError: names the argument, its value and the way out.
    """
    many = args.world_size > 1 and args.world_size
    copies = args.n_gpu > 1 and args.n_gpu
    best = "the best checkpoint may be wider than the final model; set it to False and load the one you want"
    reasons = (
        ("load_best_model_at_end", args.load_best_model_at_end, best),
        ("fsdp", args.fsdp, "sharded parameters cannot be cut in place; train on one device"),
        ("deepspeed", args.deepspeed, "its optimizer holds flat copies of the parameters; train without it"),
        ("world_size", many, "every process would have to cut alike; train in one process"),
        ("n_gpu", copies, "DataParallel copies the model; set CUDA_VISIBLE_DEVICES to one device"),
    )
    for name, value, reason in reasons:
        if value:
            raise ConfigError(f"{name} is {value!r}, which does not work while a model shrinks: {reason}")


def progress(sparsity: CoupledSparsity) -> dict[str, float]:
    """Size, mean widths per kind and next event, as numbers for a log line."""
    event = sparsity.history[-1]
    by_kind: dict[str, list[int]] = {}
    for name, width in event.widths.items():
        by_kind.setdefault(name.rpartition(".")[2], []).append(width)
    means = {f"{kind}_width": sum(widths) / len(widths) for kind, widths in by_kind.items()}
    following = sparsity.next_event
    upcoming = {} if following is None else {"next_shrink_step": float(following)}
    return {"parameters": float(event.parameters), **means, **upcoming}
