"""A fine-tuning whose outcome is judged by zero-shot tasks as well, through lm-eval's harness."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from torch import nn

from benchmarks.data import source as sources
from benchmarks.data.zero_shot import continuations, harness
from benchmarks.experiment import Run
from benchmarks.metrics.zero_shot import zero_shot_metrics
from benchmarks.task import Task
from benchmarks.tasks import fine_tuning
from results.record import Metric


def load(run: Run, folder: Path) -> Task:
    """The fine-tuning of a run, with zero-shot accuracies in addition to its perplexity.

    Raises:
        MissingSourceError: text, weights or the data of a task are not at hand.
    """
    tuned = fine_tuning.load(run, folder)
    settings, tier = run.cell.settings, run.cell.tier
    protocol, data = settings.protocol, settings.data
    names = protocol.tasks
    known = {name: harness.specification(name, tier) for name in names}
    held_out = sources.find(data.source).load(data.configuration, protocol.split, tier, data.train_bytes).evaluation
    questions = continuations.continuations(held_out, protocol.continuations)
    written = continuations.specification(questions, folder / "text")
    tokenizer = fine_tuning.foundation_of(run, folder).tokenizer
    prints = f"{tuned.fingerprint} {harness.fingerprint(names)} {questions}"

    def evaluate(model: nn.Module) -> dict[str, Metric]:
        metrics = tuned.evaluate(model)
        for number, (tasks, limit) in enumerate(protocol.asked):
            metrics |= zero_shot_metrics(
                model, tokenizer, [*(known[name] for name in tasks), *([written] if number == 0 else [])],
                harness.task_folders(tasks), _positions(model), limit, 2 * settings.training.micro_batch_size,
            )  # fmt: skip
        return metrics

    return replace(tuned, evaluate=evaluate, fingerprint=hashlib.sha256(prints.encode()).hexdigest())


def _positions(model: nn.Module) -> int:
    """Tokens that a model can hold."""
    return int(model.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]
