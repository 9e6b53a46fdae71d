"""From a method's name to the object that a run drives: the only place of the suite that looks methods up."""

from __future__ import annotations

import dataclasses

import baselines
from benchmarks.experiment import MethodRef, ShrinkSpec


def find_method(reference: MethodRef) -> type[baselines.TrainingMethod]:
    """The class of a method.

    Raises:
        ValueError: no such method; the message lists those that there are.
    """
    return baselines.load(reference.location or reference.name)


def build_method(reference: MethodRef, shrink: ShrinkSpec, seed: int) -> baselines.TrainingMethod:
    """A method with its budget.

    Raises:
        ValueError: no such method.
    """
    return find_method(reference)(baselines.Budget(seed=seed, **dataclasses.asdict(shrink)))
