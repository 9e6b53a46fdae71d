"""Training of a control that is matched to another run: the record of that run decides its size or its length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks import task
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics.flops import step_flops
from benchmarks.metrics.training_length import average_blocks
from benchmarks.procedures import training
from benchmarks.specs.matched import MatchedSettings
from benchmarks.specs.training import ShrinkSpec, TrainingSettings, TrainingSpec
from benchmarks.training.methods import build_method
from results.record import RunRecord
from results.store import Store


@dataclass(frozen=True)
class ShapedSpec(ShrinkSpec):
    """A budget whose widths are given; the target is what they come to."""

    widths: Mapping[str, int] = field(kw_only=True)


@dataclass(frozen=True)
class MatchedRun(Run):
    """The run as it is carried out; its unfinished work stands in the folder of the run that was asked for."""

    asked: Run

    @property
    def folder_name(self) -> str:
        """Name of the run's folder of unfinished work."""
        return self.asked.folder_name


def execute(run: Run, context: RunContext) -> RunResult:
    """Look up the reference, take over what is to be equal, and train.

    Args:
        run: a cell whose settings are MatchedSettings, and a seed.
        context: folder, records, threads, progress.

    Returns:
        The outcome, whose payload names the record that it is matched to.

    Raises:
        LookupError: the run that it is matched to has no finished record.
    """
    settings: MatchedSettings = run.cell.settings
    record = reference_record(run, context)
    sized = _sized(settings, record)
    steps = sized.training.steps
    if settings.control.length == "flops":
        steps = round(record.metrics["run_flops"].value / step_flops_of(run, sized, context))
    matched = replace(sized, training=longer(sized, steps))
    outcome = training.execute(MatchedRun(replace(run.cell, settings=matched), run.seed, run), context)
    return replace(outcome, payload={**outcome.payload, "matched_to": record.id})


def reference_record(run: Run, context: RunContext) -> RunRecord:
    """The newest finished record of the run that a control is matched to.

    Raises:
        LookupError: there is none.
    """
    reference = run.cell.settings.reference
    config_hash, seed = reference.config_hash, reference.seed(run.seed)
    store = Store() if context.records is None else Store(context.records)
    found = [
        record
        for record in store.records(reference.experiment, run.cell.tier, reference.method)
        if (record.config_hash, record.seed) == (config_hash, seed)
    ]
    if not found:
        raise LookupError(
            f"{run.cell.method} seed {run.seed} is matched to {reference.method} seed {seed}, which has no finished "
            f"record in {store.folder}; run that first: python -m benchmarks run {reference.experiment} "
            f"--tier {run.cell.tier} --methods {reference.method} --seeds {seed}"
        )
    return found[-1]


def _sized(settings: MatchedSettings, record: RunRecord) -> TrainingSettings:
    """Settings of an ordinary run, at the size of the control."""
    shrink, history = settings.shrink, record.plan_history
    if settings.control.size == "average":
        dense = history[0].block_parameters
        share = average_blocks(history, settings.training.steps) / dense
        shrink = replace(shrink, target_size=share, target_scope="blocks")
    elif settings.control.size == "final widths":
        shrink = ShapedSpec(**vars(shrink), widths=dict(history[-1].widths))
    parts = {part: getattr(settings, part) for part in ("method", "target", "model", "data", "protocol", "training")}
    return TrainingSettings(shrink=shrink, **parts)


def longer(settings: TrainingSettings, steps: int) -> TrainingSpec:
    """The training over another number of steps, with as large a share of warm-up.

    Args:
        settings: of the run.
        steps: of the new training.
    """
    spec = settings.training
    return replace(spec, steps=steps, warmup_steps=round(spec.warmup_steps * steps / spec.steps))


def step_flops_of(run: Run, settings: TrainingSettings, context: RunContext) -> int:
    """FLOPs of one training step of the model that some settings make.

    Args:
        run: a cell of that model, data and protocol, and a seed.
        settings: of an ordinary run, whose method makes the model.
        context: folder of the data.
    """
    loaded = task.load(Run(replace(run.cell, settings=settings), run.seed), context.folder)
    method = build_method(settings.method, settings.shrink, run.seed, settings.training)
    dense = loaded.build()
    model = method.prepare(dense)
    spec = settings.training
    one = loaded.batch(1, spec.device)
    return step_flops(dense if model is None else model, spec.batch_size, loaded.tokens, one)
