"""From a run to its record, finished or failed: the bookkeeping that is the same for every experiment."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from benchmarks import environment
from benchmarks.experiment import Outcome, Run, Workplace
from benchmarks.progress import Stopped
from benchmarks.registry import experiment
from results.record import SCHEMA_VERSION, MethodInfo, RunRecord, new_id

_UNREAD = "not read"
_REFUSAL = "UnsupportedModelError"  # by its name: a plan reads records without importing torch


class Ended(SystemExit):
    """Raised where a run's process is told to end from outside: no outcome of the run."""


def carry_out(run: Run, workplace: Workplace, origin: tuple[str, bool]) -> RunRecord:
    """Execute a run in this process and describe what came of it; an error becomes a failed record.

    Args:
        run: what to execute.
        workplace: folder, threads, progress.
        origin: commit and whether the checkout differs from it.

    Returns:
        A record with status "finished" or "failed", whose payload says `refused` where the method is not defined for
        the model: such a run is not tried again. KeyboardInterrupt is not an outcome and passes through.
    """
    began = datetime.now(UTC)
    try:
        outcome = experiment(run.cell.experiment).execute(run, workplace)
        seconds = outcome.seconds_before + (datetime.now(UTC) - began).total_seconds()
        return _record(run, workplace, origin, began, seconds, outcome, None)
    except (KeyboardInterrupt, Stopped, Ended):
        raise
    except BaseException as error:  # whatever it is, the other runs go on and the record tells it in full; a method of
        # someone else's may call sys.exit
        text = _without_places("".join(traceback.format_exception(error)))
        return failed(run, workplace, origin, began, text, refused=type(error).__name__ == _REFUSAL)


def failed(
    run: Run, workplace: Workplace, origin: tuple[str, bool], began: datetime, error: str, refused: bool = False
) -> RunRecord:
    """The record of a run that ended with an error; `refused`: the method is not defined for the model."""
    seconds = (datetime.now(UTC) - began).total_seconds()
    payload = {"refused": True} if refused else {}
    return _record(run, workplace, origin, began, seconds, Outcome({}, _UNREAD, payload=payload), error)


def is_refusal(record: RunRecord) -> bool:
    """Whether a method has refused the model of its run, which it would do again."""
    return record.status == "failed" and bool(record.payload.get("refused"))


def _without_places(text: str) -> str:
    """An error's text without the folders of this machine, which tell nobody else anything."""
    return re.sub(r'"[^"\n]*/(?:site-packages|lib/python3\.\d+)/', '"', text).replace(f"{environment.ROOT}/", "")


def command(run: Run) -> str:
    """The command that makes this one record again."""
    settings, tier = run.cell.settings, ["--tier", run.cell.tier]
    if hasattr(settings, "command_words"):
        words = [*settings.command_words(), *tier]
    else:
        method = getattr(settings, "method", None)
        words = ["run", run.cell.experiment, *tier, "--methods", getattr(method, "argument", run.cell.method)]
        words += ["--weights", "DIR"] if hasattr(settings, "folder") else []  # which they are says the configuration
    return " ".join(["python", "-m", "benchmarks", *words, "--seeds", str(run.seed)])


def _record(
    run: Run,
    workplace: Workplace,
    origin: tuple[str, bool],
    began: datetime,
    seconds: float,
    outcome: Outcome,
    error: str | None,
) -> RunRecord:
    start = began.isoformat()
    beside = {"runs_at_once": workplace.jobs} if workplace.jobs > 1 else {}
    device: Mapping[str, Any] = {**environment.machine(outcome.device, workplace.threads), **beside}
    return RunRecord(
        schema_version=SCHEMA_VERSION,
        id=new_id(start),
        experiment=run.cell.experiment,
        method=run.cell.method,
        tier=run.cell.tier,
        config=run.cell.config,
        config_hash=run.cell.config_hash,
        seed=run.seed,
        commit=origin[0],
        dirty=origin[1],
        versions=environment.versions(),
        device=dict(device),
        command=command(run),
        data_fingerprint=outcome.data_fingerprint,
        start=start,
        seconds=seconds,
        metrics=dict(outcome.metrics),
        plan_history=outcome.plan_history,
        loss_curve=outcome.loss_curve,
        status="finished" if error is None else "failed",
        error=error,
        payload=dict(outcome.payload),
        method_info=None if error is not None else method_info(run),
    )


def method_info(run: Run) -> MethodInfo | None:
    """Return how tables show the method of a run; None where what was run is no method."""
    import baselines  # a plan reads records without importing torch

    reference = getattr(run.cell.settings, "method", None)
    location = None if reference is None else reference.location or reference.name
    if location is None or (":" not in location and location not in baselines.methods()):
        return None
    found = baselines.load(location)
    # an experiment that runs one class under several settings gives each a name of its own
    title = found.title if found.name == run.cell.method else ""
    return MethodInfo(title or run.cell.method, found.removes, found.group)
