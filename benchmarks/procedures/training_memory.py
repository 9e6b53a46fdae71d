"""Trains a model that shrinks and watches the allocator: the work of experiments/training_memory.py."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn

import ecospa
from baselines.calibration import batch_loss
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics import model_metrics
from benchmarks.metrics.allocation import allocated
from benchmarks.metrics.training_state import optimizer_bytes
from benchmarks.models.language import silence_transformers
from benchmarks.models.synthetic import build, positions
from benchmarks.specs.multiples import by_kind
from benchmarks.specs.synthetic import SpeedSettings
from benchmarks.specs.training_memory import METHODS, MemoryProtocol
from benchmarks.timing.candidates import DTYPES, WithLoss, batches
from ecospa import WidthRule
from ecospa.forecast import Forecast, Workload, forecast
from results.plan_history import PlanEvent
from results.record import Metric

_DENSE_STEPS = 2  # the first makes the optimizer's state, the second is like all that follow
_NO_LIMIT = 2**62

Row = dict[str, int]


def execute(run: Run, context: RunContext) -> RunResult:
    """Train the dense model for two steps, then a copy over its schedule, and compare with what was predicted."""
    settings: SpeedSettings = run.cell.settings
    protocol: Any = settings.protocol
    if run.cell.method not in METHODS:
        raise ecospa.ConfigError(f"method is {run.cell.method!r}; training_memory measures {' and '.join(METHODS)}")
    torch.set_num_threads(context.threads)
    silence_transformers()
    torch.manual_seed(run.seed)
    model = build(settings.model).to(protocol.device, DTYPES[protocol.precision])
    steps = batches(settings, protocol.turns, run.seed)
    predicted = _predicted(model, settings)
    reference = _Training(copy.deepcopy(model), settings, None, None)
    dense = [reference.step(batch) for batch in steps[:_DENSE_STEPS]]
    dense_peak = max(row["peak"] for row in dense)
    del reference
    limit = None if protocol.budget is None else int(protocol.budget * dense_peak)
    training = _Training(model, settings, config(settings), limit)
    rows = []
    for number, batch in enumerate(steps):
        rows.append(training.step(batch))
        context.progress(number + 1, len(steps))
    steady = training.step(steps[0])  # all events are over
    metrics = {
        **_bytes(rows, steady, dense_peak),
        "foretold_training_bytes": Metric(float(predicted.stages[-1].bytes), "bytes", None),
        "foretold_steady_memory": Metric(float(training.predicted_peak(steps[0])), "bytes", None),
        **model_metrics(model),
    }
    if limit is not None:
        metrics["memory_limit"] = Metric(float(limit), "bytes", None)
    return RunResult(metrics, "0" * 64, _history(training), payload={"steps": rows}, device=protocol.device)


def config(settings: SpeedSettings) -> ecospa.EcoSpaConfig | None:
    """The schedule of a run: down to its target within three quarters of the steps; None for a run that stays dense."""
    protocol: Any = settings.protocol
    if settings.target is None:
        return None
    return ecospa.EcoSpaConfig(
        target_size=settings.target, target_scope="blocks", pace="curve", start_step=2, interval=2,
        end_step=protocol.turns * 3 // 4, width_multiple=WidthRule(**asdict(by_kind(protocol.width_multiple))),
    )  # fmt: skip


class _Training:
    """A model that trains with AdamW, maybe shrinks, maybe below a limit, and tells the bytes of every step."""

    def __init__(
        self, model: nn.Module, settings: SpeedSettings, config: ecospa.EcoSpaConfig | None, limit: int | None
    ) -> None:
        self.model, self.device = model.train(), settings.protocol.device
        self.optimizer: Any = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.sparsity = None if config is None else ecospa.CoupledSparsity(model, self.optimizer, config)
        self.budget = None if limit is None else ecospa.MemoryBudget(limit, WithLoss(model), self.optimizer)

    def step(self, batch: dict[str, Tensor]) -> Row:
        """Train on a batch; return weights, gradients, optimizer, and the peak of the step with all of them in it."""
        if self.budget is not None:
            next(self.budget.split(batch))  # traces, which is no part of the step
        before = _size([*self.model.parameters(), *self.model.buffers()]) + self._state()
        _, peak = allocated(lambda: self._train(batch), self.device)
        parameters = list(self.model.parameters())
        row = {
            "weights": _size(parameters),
            "gradients": _size([p.grad for p in parameters if p.grad is not None]),
            "optimizer": optimizer_bytes(self.optimizer),
            "peak": before + peak,
            "micro_batch": self._micro_batch(batch),
        }
        if self.sparsity is not None:
            self.sparsity.after_step()
        self.optimizer.zero_grad()
        return row

    def predicted_peak(self, batch: dict[str, Tensor]) -> int:
        """Bytes that a step is expected to hold, at the model's present size, all examples at once."""
        unlimited = ecospa.MemoryBudget(_NO_LIMIT, WithLoss(self.model), self.optimizer)
        return unlimited.peak(batch, self._micro_batch(batch), margin=1.0)

    def _train(self, batch: dict[str, Tensor]) -> None:
        for part, share in [(batch, 1.0)] if self.budget is None else self.budget.split(batch):
            (batch_loss(self.model, part) * share).backward()
        if self.sparsity is not None:
            self.sparsity.after_backward()
        self.optimizer.step()

    def _micro_batch(self, batch: dict[str, Tensor]) -> int:
        chosen = None if self.budget is None else self.budget.micro_batch
        return len(batch["labels"]) if chosen is None else chosen

    def _state(self) -> int:
        return _size([v for state in self.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)])


def _bytes(rows: list[Row], steady: Row, dense_peak: int) -> dict[str, Metric]:
    peaks = [row["peak"] for row in rows]
    held = {name: steady[name] for name in ("weights", "gradients", "optimizer")}
    numbers = {
        "peak_memory": max(peaks),
        "steady_memory": steady["peak"],
        "mean_memory": statistics.fmean(peaks),
        "dense_peak_memory": dense_peak,
        "training_bytes": sum(held.values()),
        **{f"{name}_bytes": value for name, value in held.items()},
    }
    metrics = {name: Metric(float(value), "bytes", False) for name, value in numbers.items()}
    for name in ("peak", "steady", "mean"):
        metrics[f"{name}_memory_ratio"] = Metric(numbers[f"{name}_memory"] / dense_peak, "run / dense peak", False)
    return metrics


def _predicted(model: nn.Module, settings: SpeedSettings) -> Forecast:
    """The run as `ecospa plan` sees it; a dense model has one stage, whatever the configuration."""
    protocol = cast(MemoryProtocol, settings.protocol)
    wanted = config(settings)
    dense = ecospa.EcoSpaConfig(start_step=protocol.turns + 1, target_scope="blocks")
    work = Workload(
        protocol.turns, protocol.batch, sequence=positions(settings.model, protocol.sequence),
        precision=protocol.precision,
    )  # fmt: skip
    return forecast(model, wanted or dense, work)


def _history(training: _Training) -> tuple[PlanEvent, ...]:
    if training.sparsity is None:
        return ()
    return tuple(
        PlanEvent(event.step, event.parameters, event.block_parameters, dict(event.widths))
        for event in training.sparsity.history
    )


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
