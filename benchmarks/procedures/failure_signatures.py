"""Shrinks a trained model badly on purpose while the library watches it: experiments/failure_signatures.py.

A plain PyTorch loop around ecospa.CoupledSparsity, ecospa.LossWatch and ecospa.check_ranking, as a user would write it.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import ecospa
from baselines.method import Budget
from benchmarks.data.text.packing import evaluation_windows, training_sequences
from benchmarks.data.text.tokenized import prepare
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics import model_metrics
from benchmarks.metrics.perplexity import perplexity_metrics, predict
from benchmarks.models.language import silence_transformers
from benchmarks.specs.failure_signatures import StressSettings
from benchmarks.tasks.trained_language_model import trained_place
from benchmarks.training.broken_importance import broken_importance
from ecospa.health import Finding
from ecospa.ranking_check import as_finding
from results.plan_history import PlanEvent
from results.record import Metric

_POINTS = 200
"""Points of the loss curve."""


@dataclass
class Watched:
    """A run and what was told of it, filled in while it trains."""

    losses: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def execute(run: Run, context: RunContext) -> RunResult:
    """Train, shrink, watch, and evaluate what is left.

    Raises:
        MissingSourceError: the text is not at hand.
    """
    settings: StressSettings = run.cell.settings
    torch.set_num_threads(context.threads)
    silence_transformers()
    place = trained_place(settings, run.cell.tier, context, run.seed)
    text = prepare(settings.data, settings.protocol, run.cell.tier, context.folder)
    sequences = torch.from_numpy(training_sequences(text.train, settings.protocol.sequence_length).astype("int64"))
    windows = evaluation_windows(text.evaluation, settings.protocol.sequence_length, settings.protocol.stride)
    model = ecospa.from_pretrained(place)
    watched, events = _train(model, sequences, settings, run.seed, context)
    prediction = predict(model, *windows, batch_size=2 * settings.training.micro_batch_size, device="cpu")
    return RunResult(
        metrics={
            **perplexity_metrics(prediction, text.words, text.size),
            **model_metrics(model),
            "shrink_events": Metric(float(len(events) - 1), "events", None),
        },
        data_fingerprint=text.fingerprint,
        plan_history=tuple(PlanEvent(e.step, e.parameters, e.block_parameters, dict(e.widths)) for e in events),
        loss_curve=_curve(watched.losses),
        payload={"findings": [_plain(one) for one in watched.findings]},
    )


def _train(
    model: nn.Module, sequences: Tensor, settings: StressSettings, seed: int, context: RunContext
) -> tuple[Watched, Sequence[ecospa.ShrinkEvent]]:
    """Train at a constant rate, shrink on the way, and collect what the library tells."""
    training, spec = settings.training, settings.watch
    watch, watched = ecospa.LossWatch(spec.window, spec.patience), Watched()
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    sparsity = ecospa.CoupledSparsity(
        model,
        optimizer,
        Budget(**asdict(settings.shrink)).config(),
        on_cut=watch.cut,
        estimator=broken_importance(settings.importance),
    )
    probe = sequences[-spec.sequences :]  # a sequence of the training text has been seen by all arms alike
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ecospa.FailureSignatureWarning)  # the record holds them
        for step, batch in enumerate(_batches(sequences, training.batch_size, training.steps, seed), start=1):
            loss = model(input_ids=batch, labels=batch).loss
            loss.backward()
            sparsity.after_backward()
            nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
            if sparsity.next_event == step and not any(one.signature == "reversed ranking" for one in watched.findings):
                _check(sparsity, probe, step, watched)
            optimizer.step()
            watched.losses.append(loss.item())
            watched.findings += watch.observe(step, watched.losses[-1])
            sparsity.after_step()
            optimizer.zero_grad()
            context.progress(step, training.steps)
    sparsity.close()
    return watched, sparsity.history


def _check(sparsity: ecospa.CoupledSparsity, probe: Tensor, step: int, watched: Watched) -> None:
    found = ecospa.check_ranking(sparsity, lambda model: _loss(model, probe))
    if found.reversed:
        watched.findings.append(as_finding(found, step))


def _loss(model: Any, batch: Tensor) -> float:
    return float(model(input_ids=batch, labels=batch).loss)


def _batches(sequences: Tensor, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """The same batches for every arm of a seed."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield sequences[torch.randint(len(sequences), (size,), generator=generator)]


def _curve(losses: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Mean losses over stretches of equal length, each at its last step."""
    length = math.ceil(len(losses) / _POINTS)
    return tuple(
        (start + len(part), statistics.fmean(part))
        for start in range(0, len(losses), length)
        if (part := losses[start : start + length])
    )


def _plain(found: Finding) -> dict[str, Any]:
    """A finding as JSON; a loss that is no number is None."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(found).items()
    }
