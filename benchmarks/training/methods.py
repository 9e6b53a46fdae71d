"""From a method's name to the object that a run drives: the only place of the suite that looks methods up."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import baselines
from benchmarks.experiment import MethodRef
from benchmarks.specs.training import ShrinkSpec, TrainingSpec
from results.record import NAME


def find_method(reference: MethodRef) -> type[baselines.TrainingMethod]:
    """The class of a method.

    Raises:
        ValueError: no such method; the message lists those that there are.
    """
    return baselines.load(reference.location or reference.name)


def named(reference: MethodRef, taken: Collection[str]) -> MethodRef:
    """A method of the command line under the name that it gives itself.

    One of `baselines` that was named by its place is that method; a class that inherits its name is called as itself.

    Args:
        reference: which.
        taken: names of methods that experiments have.

    Raises:
        ValueError: no such method, or its name is another's or cannot name a file.
    """
    method = find_method(reference)
    if reference.location is None:
        return reference
    if baselines.methods().get(method.name) is method:
        return MethodRef(method.name)
    name = method.name if "name" in vars(method) else method.__name__
    if name in taken or name in baselines.methods():
        raise ValueError(f"method is {reference.location!r}, whose name {name!r} is another method's; rename it")
    if not NAME.fullmatch(name):
        raise ValueError(
            f"method is {reference.location!r}, whose name is {name!r}; a name has letters, digits, '_' and '.' only, "
            "and begins with a letter or a digit, because it names files"
        )
    return MethodRef(name, reference.location, custom=True)


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
    rates: dict[str, Any] = {}
    if training is not None:
        rates = {"learning_rate": training.learning_rate, "weight_decay": training.weight_decay}
    return find_method(reference)(baselines.Budget(seed=seed, **dataclasses.asdict(shrink), **rates))
