"""Registry of experiments: every file of `benchmarks/experiments` that defines EXPERIMENT.

A new experiment is one new file; nothing else has to be told.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import MappingProxyType, ModuleType

import benchmarks.experiments
from benchmarks.experiment import Experiment


@cache
def experiments() -> MappingProxyType[str, Experiment]:
    """All experiments by name, in alphabetical order.

    Raises:
        ValueError: a file defines no EXPERIMENT, or one whose name is not the file's.
    """
    by_name = {}
    for module in pkgutil.iter_modules(benchmarks.experiments.__path__):
        experiment = getattr(_module(module.name), "EXPERIMENT", None)
        if not isinstance(experiment, Experiment) or experiment.name != module.name:
            raise ValueError(f"experiments/{module.name}.py must define EXPERIMENT with name={module.name!r}")
        by_name[module.name] = experiment
    return MappingProxyType(by_name)


def experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    if name not in experiments():
        raise ValueError(f"experiment is {name!r}; choose from {', '.join(experiments())}")
    return experiments()[name]


def header(name: str) -> str:
    """The docstring of an experiment's file: what it tests, command, hours per tier, expected result."""
    return (_module(experiment(name).name).__doc__ or "").strip()


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.experiments.{name}")
