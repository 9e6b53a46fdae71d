"""Contract of a task, what models are trained for and judged by; one file of `benchmarks/tasks` with a function `load`.

The runner trains, shrinks, times and counts the same way whatever the task is; what differs stands here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from results.record import Metric

if TYPE_CHECKING:
    from baselines.method import TrainingMethod
    from benchmarks.experiment import Run

Example = Mapping[str, Tensor]


def _nothing(model: nn.Module) -> None:
    """Asks nothing of a model."""


@dataclass(frozen=True)
class Task:
    """A model to train, examples to train it on, and the numbers that say how good it is.

    Attributes:
        build: a fresh dense model on the run's device, the same one at every call.
        examples: what it is trained on; `model(**batch)` takes a batch of them.
        tokens: positions that one example has inside the model, for counting FLOPs.
        evaluate: model -> metrics on held-out data; the model's mode is put back.
        fingerprint: of all data, and of weights that others have trained.
        source: where the examples come from, for the record.
        loss: (outputs, labels, examples of the step or None) -> loss, for a model that has none of its own.
        collate: makes a training batch from examples; it may augment, so nothing else uses it.
        ready: told the model that will be trained, whichever method made it, before its first step or after a resume.
        drive: the method as this task uses it; as it is by default.
    """

    build: Callable[[], nn.Module]
    examples: Dataset[Any]
    tokens: int
    evaluate: Callable[[nn.Module], dict[str, Metric]]
    fingerprint: str
    source: str
    loss: Callable[[Any, Tensor, Any], Tensor] | None = None
    collate: Callable[[list[Example]], dict[str, Any]] = default_collate
    ready: Callable[[nn.Module], None] = _nothing
    drive: Callable[[TrainingMethod], TrainingMethod] = lambda method: method

    def batch(self, size: int, device: str = "cpu") -> dict[str, Tensor]:
        """The first examples as a batch, unaugmented: what is timed and counted."""
        together: dict[str, Tensor] = default_collate([self.examples[number] for number in range(size)])
        return {name: value.to(device) for name, value in together.items()}


def load(run: Run, folder: Path) -> Task:
    """The task of a run, by the name that its protocol gives.

    Args:
        run: its settings are TrainingSettings.
        folder: of the caches.

    Raises:
        MissingSourceError: its data are not at hand.
    """
    name = run.cell.settings.protocol.task
    task: Task = importlib.import_module(f"benchmarks.tasks.{name}").load(run, folder)
    return task
