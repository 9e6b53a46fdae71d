"""How large a model is: parameters stored, and parameters not forced to zero (methods that mask store all)."""

from __future__ import annotations

from typing import Any

from torch import nn

import ecospa
from results.record import Metric


def size_metrics(model: nn.Module, nonzero: tuple[int, int]) -> dict[str, Metric]:
    """Stored and non-zero parameters, of the whole model and of its blocks.

    Args:
        model: the final model.
        nonzero: the method's own count of (all, block) parameters that are not forced to zero.
    """
    stored = {
        "parameters": ecospa.accounting.parameters(model),
        "block_parameters": ecospa.accounting.parameters(model, scope="blocks"),
    }
    counted = {**stored, "parameters_nonzero": nonzero[0], "block_parameters_nonzero": nonzero[1]}
    return {name: Metric(float(value), "parameters", False) for name, value in counted.items()}


def plan_event(model: nn.Module, step: int) -> dict[str, Any]:
    """Size and widths of a model at a step, in the form of a method's history."""
    return {
        "step": step,
        "parameters": ecospa.accounting.parameters(model),
        "block_parameters": ecospa.accounting.parameters(model, scope="blocks"),
        "widths": {pair.name: pair.width for pair in ecospa.coupled_pairs(model)},
    }
