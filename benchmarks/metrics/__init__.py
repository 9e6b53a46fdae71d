"""One family of metrics = one file: what is measured, in which unit, and whether more is better.

A file with a function `of_model(model, method)` is found here: what it measures of a final model stands in the record
of every run that has one.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from results.record import Metric

if TYPE_CHECKING:
    from torch import nn

    from baselines.method import TrainingMethod

OfModel = Callable[["nn.Module", "TrainingMethod | None"], dict[str, Metric]]


def model_metrics(model: nn.Module, method: TrainingMethod | None = None) -> dict[str, Metric]:
    """Everything that the files of this folder measure of a final model.

    Args:
        model: the final model, cut or masked.
        method: counts what it masks; None for a model that holds no masks.

    Raises:
        ValueError: two files measure something of the same name.
    """
    measured: dict[str, Metric] = {}
    for name, of_model in measures().items():
        found = of_model(model, method)
        if twice := sorted(set(found) & set(measured)):
            raise ValueError(f"metrics/{name}.py measures {twice[0]!r}, which another file measures; rename it")
        measured |= found
    return measured


@functools.cache
def measures() -> dict[str, OfModel]:
    """The functions `of_model` of this folder by the names of their files, read once."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module.of_model for name, module in modules.items() if hasattr(module, "of_model")}
