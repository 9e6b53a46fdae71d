"""Size of a model: parameters stored, those not forced to zero, and those that can have an effect.

Methods that mask store all; what masks cut off from input or output is stored and not zero, but has no effect.
"""

from __future__ import annotations

from torch import nn

from baselines.method import TrainingMethod
from ecospa.accounting import parameters
from results.record import Metric


def of_model(model: nn.Module, method: TrainingMethod | None = None) -> dict[str, Metric]:
    """Stored, non-zero and effective parameters, of the whole model and of its blocks.

    Args:
        model: the final model.
        method: counts what it masks; None for a model that holds no masks.
    """
    stored = (parameters(model), parameters(model, "blocks"))
    nonzero = stored if method is None else method.nonzero_parameters(model)
    effective = stored if method is None else method.effective_parameters(model)
    counted = {"": stored, "_nonzero": nonzero, "_effective": effective}
    return {
        f"{scope}{kind}": Metric(float(count), "parameters", False)
        for kind, counts in counted.items()
        for scope, count in zip(("parameters", "block_parameters"), counts, strict=True)
    }
