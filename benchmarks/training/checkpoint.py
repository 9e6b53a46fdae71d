"""Unfinished work of a run: what is needed to go on after a kill as if nothing had happened.

The Trainer keeps optimizer, learning rate and random numbers. Beside them stand the model with its present widths, the
method's own state, and what had been measured so far. `run.json` is written last: a checkpoint without it is not used.
Only then do the others go. The Trainer would count what a kill has left half written among those that it keeps, and
could remove the last complete one before the next is.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from baselines.method import TrainingMethod

_MODEL = "model_with_widths"
_RUN = "run.json"


@dataclass
class Progress:
    """Measurements of a run so far that a later process has to know.

    Attributes:
        seconds: wall-clock time of earlier processes.
        step_seconds: time of every optimizer step.
        run_flops: FLOPs so far.
        peak_memory: highest memory of earlier processes, in bytes.
        training_bytes_peak: most bytes of weights, gradients and optimizer state so far.
        training_bytes: those of the last step.
        data_seconds: between steps, in which they waited for their batches.
        started: plan-history entry of the model before the first step.
    """

    seconds: float = 0.0
    step_seconds: list[float] = field(default_factory=list)
    run_flops: int = 0
    peak_memory: int = 0
    training_bytes_peak: int = 0
    training_bytes: int = 0
    data_seconds: float = 0.0
    started: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, model: nn.Module, method: TrainingMethod, progress: Progress) -> None:
    """Complete a Trainer checkpoint, its mark of completeness last, and remove all others of the run."""
    method.save(model, folder / _MODEL)
    partial = folder / (_RUN + ".part")
    partial.write_text(json.dumps({"method": method.state_dict(), "progress": asdict(progress)}))
    partial.replace(folder / _RUN)
    for other in folder.parent.glob("checkpoint-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint below a run's folder, or None."""
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{_RUN}")]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def load_model(folder: Path, method: TrainingMethod, dense: nn.Module) -> nn.Module:
    """The model of a checkpoint as the method left it; `dense` is freshly built and may be used up."""
    return method.load(folder / _MODEL, dense)


def load_state(folder: Path) -> tuple[dict[str, Any], Progress]:
    """The method's state and the measurements of a checkpoint."""
    content = json.loads((folder / _RUN).read_text())
    return content["method"], Progress(**content["progress"])
