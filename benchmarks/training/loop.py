"""The one training loop of the suite: transformers.Trainer trains, the hooks of a method shrink.

The same function carries a smoke run and a run of days, whatever the task. A run that was killed goes on from its last
checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from baselines.method import size_entry
from benchmarks import task
from benchmarks.data import calibration
from benchmarks.experiment import Run, RunContext
from benchmarks.metrics.flops import step_flops
from benchmarks.metrics.memory import peak_memory, reset_peak
from benchmarks.models.language import silence_transformers
from benchmarks.specs.training import Throughput, TrainingSettings
from benchmarks.training import checkpoint
from benchmarks.training.callback import MethodCallback
from benchmarks.training.compiled_blocks import compiled_blocks
from benchmarks.training.methods import build_method

if TYPE_CHECKING:
    from baselines.calibration import Calibration
    from baselines.method import TrainingMethod

_CURVE_POINTS = 200


@dataclass
class Started:
    """A run at its start or where it was interrupted."""

    model: nn.Module
    method: TrainingMethod
    data: Calibration
    progress: checkpoint.Progress
    resume_from: Path | None


@dataclass(frozen=True)
class Trained:
    """A trained model and what the training left behind.

    Attributes:
        started: model, method and measurements; the model is the one that was trained.
        task: what it was trained on and is to be judged by.
        log: the Trainer's log.
        seconds_before: time of earlier processes of the same run.
    """

    started: Started
    task: task.Task
    log: list[dict[str, Any]]
    seconds_before: float


def train(run: Run, context: RunContext) -> Trained:
    """The training alone, from the start or from the last checkpoint in the run's folder.

    Raises:
        MissingSourceError: the data are not at hand.
        FloatingPointError: the loss became NaN or infinite.
    """
    settings: TrainingSettings = run.cell.settings
    torch.set_num_threads(context.threads)
    silence_transformers()
    loaded = task.load(run, context.folder)
    reset_peak(settings.training.device)  # the first run of a cache has made it: no memory of its method
    started = _start(run, loaded, context.folder / run.folder_name)
    loaded.ready(started.model)
    seconds_before = started.progress.seconds
    trainer = _trainer(run, started, loaded, context)
    throughput = settings.training.throughput or Throughput()
    with compiled_blocks(started.model, throughput.compile_blocks):
        trainer.train(resume_from_checkpoint=None if started.resume_from is None else str(started.resume_from))
    started.progress.peak_memory = max(started.progress.peak_memory, peak_memory(settings.training.device))
    return Trained(started, loaded, trainer.state.log_history, seconds_before)


def _start(run: Run, loaded: task.Task, folder: Path) -> Started:
    settings: TrainingSettings = run.cell.settings
    training = settings.training
    data = calibration.draw(loaded.examples, training.micro_batch_size, run.seed, loaded.source, training.device)
    method = loaded.drive(build_method(settings.method, settings.shrink, run.seed, training))
    dense = loaded.build()
    resume_from = checkpoint.latest(folder)
    if resume_from is not None:
        method_state, progress = checkpoint.load_state(resume_from)
        method.load_state_dict(method_state)
        model = checkpoint.load_model(resume_from, method, dense).to(torch.device(training.device))
        return Started(model, method, data, progress, resume_from)
    prepared = method.prepare(dense, data)
    model = dense if prepared is None else prepared
    first = method.history[0] if method.history else size_entry(0, model)
    return Started(model, method, data, checkpoint.Progress(started=dict(first)), None)


def _trainer(run: Run, started: Started, loaded: task.Task, context: RunContext) -> Trainer:
    training = run.cell.settings.training
    throughput = training.throughput or Throughput()
    arguments = TrainingArguments(
        output_dir=str(context.folder / run.folder_name),
        use_cpu=training.device == "cpu",
        bf16=training.precision == "bf16",
        seed=run.seed,
        data_seed=run.seed,
        max_steps=training.steps,
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.batch_size // training.micro_batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        lr_scheduler_type="cosine",
        warmup_steps=training.warmup_steps,
        optim="adamw_torch_fused" if throughput.fused_optimizer else "adamw_torch",
        logging_steps=max(1, math.ceil(training.steps / _CURVE_POINTS)),
        logging_nan_inf_filter=False,
        save_strategy="no",  # the callback asks for checkpoints by the clock
        save_total_limit=None,  # a complete one removes the others
        report_to="none",
        disable_tqdm=True,
        dataloader_drop_last=True,
        dataloader_num_workers=throughput.data_workers,
        dataloader_pin_memory=throughput.data_workers > 0 and training.device == "cuda",
        remove_unused_columns=False,
    )
    _use_one_device(arguments)
    one = loaded.batch(1, training.device)
    callback = MethodCallback(
        started.method,
        training,
        lambda model: step_flops(model, training.batch_size, loaded.tokens, one),
        context,
        started.progress,
        started.data,
    )
    trainer = Trainer(
        model=started.model,
        args=arguments,
        train_dataset=loaded.examples,
        data_collator=loaded.collate,
        callbacks=[callback],
        optimizers=(started.method.build_optimizer(started.model), None),
        compute_loss_func=loaded.loss,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _use_one_device(arguments: TrainingArguments) -> None:
    """Train on one GPU even where several are visible.

    The Trainer would spread the model over all of them, and an optimizer step would see as many micro-batches more
    than the record says.
    """
    _ = arguments.device  # counts the GPUs, once; before that the number below would be overwritten
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
