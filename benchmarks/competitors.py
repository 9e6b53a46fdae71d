"""From a method's name to the object that a run drives: the only place of the suite that looks methods up."""

from __future__ import annotations

import dataclasses

import baselines
from benchmarks.experiment import MethodRef, ShrinkSpec, TrainingSpec


def find_method(reference: MethodRef) -> type[baselines.TrainingMethod]:
    """The class of a method.

    Raises:
        ValueError: no such method; the message lists those that there are.
    """
    return baselines.load(reference.location or reference.name)


def build_method(
    reference: MethodRef, shrink: ShrinkSpec, seed: int, training: TrainingSpec | None = None
) -> baselines.TrainingMethod:
    """A method with its budget.

    Args:
        reference: which.
        shrink: how small, by when.
        seed: of the run.
        training: gives methods with an optimizer of their own the experiment's rates; None where nothing is trained.

    Raises:
        ValueError: no such method.
    """
    rates = {} if training is None else {"learning_rate": training.learning_rate, "weight_decay": training.weight_decay}
    return find_method(reference)(baselines.Budget(seed=seed, **dataclasses.asdict(shrink), **rates))
