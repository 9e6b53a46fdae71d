"""EcoSpa in the Hugging Face training loop: a callback for any Trainer, and a Trainer that also resumes by itself.

The Trainer's own order is used: gradients are read when the optimizer has stepped, clipped and unscaled; the model is
cut when the step has ended and no gradient is alive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from ecospa.checkpoint import checkpoint_shape, narrow_to, verify, write_manifest
from ecospa.config import ConfigError, EcoSpaConfig
from ecospa.memory_budget import MemoryBudget, check_limit
from ecospa.sparsity import CoupledSparsity, ShrinkEvent
from ecospa.wrappers import unwrapped

logger = logging.getLogger(__name__)


class EcoSpaCallback(TrainerCallback, ExportableState):
    """Coupled sparsity on any `transformers.Trainer`.

    With gradient accumulation the gradient that is squared is the mean over the micro-batches, and with clipping it is
    the clipped one: a common factor within a step, so the ranking inside it is unchanged.

    Args:
        config: the method's configuration (a mapping of its fields is fine, as a restored callback gets it).

    Attributes:
        sparsity: the running CoupledSparsity; None before training begins.

    Raises:
        ConfigError: at the start of training, when something that cannot work together is asked for.
    """

    def __init__(self, config: EcoSpaConfig | Mapping[str, Any]) -> None:
        self.config = config if isinstance(config, EcoSpaConfig) else EcoSpaConfig(**config)
        self.sparsity: CoupledSparsity | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse what cannot work, bind to model and optimizer, continue from a checkpoint's state."""
        check_arguments(args)
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        callbacks: Any = state.stateful_callbacks or {}
        saved = callbacks.get(type(self).__name__) if state.global_step > 0 else None
        resume = saved["attributes"]["saved_state"] if saved else None
        if state.global_step > 0 and resume is None:
            raise ConfigError(
                f"training resumes at step {state.global_step} from a checkpoint that was written without "
                f"{type(self).__name__}; start a new run from its weights instead"
            )
        self.sparsity = CoupledSparsity(model, optimizer, self.config, on_cut=self._report, resume=resume)

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
        """Add size, mean widths and the next event to what the progress bar prints."""
        if self.sparsity is not None and isinstance(kwargs.get("logs"), dict):
            kwargs["logs"].update(progress(self.sparsity))

    def state(self) -> dict[str, Any]:
        """What a Trainer checkpoint stores of this callback."""
        saved = None if self.sparsity is None else self.sparsity.state_dict()
        return {"args": {"config": asdict(self.config)}, "attributes": {"saved_state": saved}}

    def _report(self, event: ShrinkEvent) -> None:
        following = None if self.sparsity is None else self.sparsity.next_event
        logger.info(
            "step %d: %d parameters, %d in blocks, next event at step %s",
            event.step, event.parameters, event.block_parameters, following,
        )  # fmt: skip


class EcoSpaTrainer(Trainer):
    """`transformers.Trainer` that shrinks its model, and resumes from its checkpoints with a dense model in hand.

    Args:
        ecospa_config: the method's configuration; everything else as for `transformers.Trainer`.
        memory_budget: bytes that a step may hold at once (ecospa.MemoryBudget); batches go through the model in parts
            that fit, and the steps stay those of the whole batches. Or what makes the MemoryBudget from model and
            optimizer, where it needs more than a limit. None: whole batches.

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
        **kwargs: Any,
    ) -> None:
        if args is not None:
            check_arguments(args)
        self.ecospa = EcoSpaCallback(ecospa_config)
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
            loss: Any = self.compute_loss(model, dict(part), num_items_in_batch=items)
        assert isinstance(loss, Tensor)
        return loss

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

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        verify(folder)
        narrow_to(
            self.accelerator.unwrap_model(self.model) if model is None else model, checkpoint_shape(folder), folder
        )
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        write_manifest(self.accelerator.unwrap_model(self.model), Path(output_dir or str(self.args.output_dir)))


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
