"""Training of a fresh model in a shape that a probe finds first, in the same run and by the same training loop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks import task
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.procedures import training
from benchmarks.procedures.matched_training import MatchedRun, ShapedSpec, longer, reference_record, step_flops_of
from benchmarks.specs.shape_first import ShapeFirstSettings
from benchmarks.specs.training import TrainingSettings
from benchmarks.training.loop import train
from benchmarks.training.methods import build_method
from ecospa import Shape, shape_rules
from results.record import Metric

_APART = 1000
"""Between the seeds of the probes of one run, so that no other run has them."""


@dataclass(frozen=True)
class ProbeRun(Run):
    """A probe as it is carried out; its unfinished work stands inside the folder of the run that was asked for."""

    asked: Run
    number: int

    @property
    def folder_name(self) -> str:
        """Name of the probe's folder of unfinished work."""
        return f"{self.asked.folder_name}/probe-{self.number}"


@dataclass(frozen=True)
class Probed:
    """Results of one probe: its shape, and what it adds to the costs of the run."""

    shape: Shape
    costs: Mapping[str, float]
    seconds_before: float


def execute(run: Run, context: RunContext) -> RunResult:
    """Find the shape, and train a fresh model of it.

    Args:
        run: a cell whose settings are ShapeFirstSettings, and a seed.
        context: folder, records, threads, progress.

    Returns:
        The outcome of the fresh model; FLOPs and peaks are those of the probes, too, steps and tokens are not. The
        payload holds the shape.

    Raises:
        LookupError: the run at whose FLOPs this one ends has no finished record.
        ValueError: the probes alone cost as much as that run.
    """
    settings: ShapeFirstSettings = run.cell.settings
    limit = None if settings.reference is None else reference_record(run, context)
    probes = [_probe(run, number, context) for number in range(settings.probe.runs)]
    shape = _shape(run, context, probes)
    flops = sum(probe.costs["run_flops"] for probe in probes)
    sized = _sized(settings, shape)
    steps = settings.training.steps
    if limit is not None:
        steps = round((limit.metrics["run_flops"].value - flops) / step_flops_of(run, sized, context))
        if steps < 1:
            raise ValueError(
                f"probe.share is {settings.probe.share}: the probes cost {flops:.3g} FLOPs, {limit.method} seed "
                f"{limit.seed} as a whole {limit.metrics['run_flops'].value:.3g}; take a smaller share, or fewer runs"
            )
    made = replace(sized, training=longer(sized, steps))
    outcome = training.execute(MatchedRun(replace(run.cell, settings=made), run.seed, run), context)
    matched = {} if limit is None else {"matched_to": limit.id}
    return replace(
        outcome,
        metrics=_with_probes(outcome.metrics, probes),
        payload={**outcome.payload, "shape": json.loads(shape.to_json()), **matched},
        seconds_before=outcome.seconds_before + sum(probe.seconds_before for probe in probes),
    )


def probe_settings(settings: ShapeFirstSettings) -> TrainingSettings:
    """Settings of the probe: an ordinary run of its method over its share of the steps."""
    probe = settings.probe
    parts = {part: getattr(settings, part) for part in ("target", "model", "data", "protocol")}
    method = replace(settings.method, name=probe.method, location=None)
    length = longer(settings, probe.steps(settings.training.steps))
    return TrainingSettings(method=method, shrink=probe.shrink(settings.shrink), training=length, **parts)


def _probe(run: Run, number: int, context: RunContext) -> Probed:
    """Train one probe; of its model the widths are left."""
    settings = probe_settings(run.cell.settings)
    seed = run.seed + _APART * number
    trained = train(ProbeRun(replace(run.cell, settings=settings), seed, run, number), context)
    started = trained.started
    progress, widths = started.progress, started.method.history[-1]["widths"]
    shape = Shape.build(
        trained.task.build(), widths, rule="probe", settings={"method": settings.method.name}, seeds=(seed,),
        probe_steps=settings.training.steps, probe_flops=progress.run_flops,
    )  # fmt: skip
    costs = {
        "run_flops": progress.run_flops,
        "peak_memory": progress.peak_memory,
        "training_bytes_peak": progress.training_bytes_peak,
    }
    return Probed(shape, costs, trained.seconds_before)


def _shape(run: Run, context: RunContext, probes: list[Probed]) -> Shape:
    """The shape of a single probe, or the average of several on the target of the run."""
    if len(probes) == 1:
        return probes[0].shape
    settings = run.cell.settings
    dense = task.load(run, context.folder).build()
    config = build_method(settings.method, settings.shrink, run.seed).budget.config()
    return shape_rules.average(dense, [probe.shape for probe in probes], config)


def _sized(settings: ShapeFirstSettings, shape: Shape) -> TrainingSettings:
    """Settings of the fresh model as an ordinary run."""
    parts = {part: getattr(settings, part) for part in ("method", "target", "model", "data", "protocol", "training")}
    return TrainingSettings(shrink=ShapedSpec(**vars(settings.shrink), widths=shape.widths), **parts)


def _with_probes(metrics: Mapping[str, Metric], probes: list[Probed]) -> dict[str, Metric]:
    """The metrics of the fresh model's training, with the FLOPs of the probes added and their peaks looked at."""
    added = dict(metrics)
    flops = sum(probe.costs["run_flops"] for probe in probes)
    added["run_flops"] = replace(metrics["run_flops"], value=metrics["run_flops"].value + flops)
    added["probe_flops"] = replace(metrics["run_flops"], value=float(flops))
    for name in ("peak_memory", "training_bytes_peak"):
        highest = max(metrics[name].value, *(float(probe.costs[name]) for probe in probes))
        added[name] = replace(metrics[name], value=highest)
    return added
