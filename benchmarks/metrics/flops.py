"""How much arithmetic a run needed, from the shapes alone (ecospa.accounting).

A method that masks multiplies by zeros and is charged for them: that is what ordinary hardware does.
"""

from __future__ import annotations

from torch import nn

import ecospa
from results.record import Metric


def step_flops(model: nn.Module, sequences: int, sequence_length: int) -> int:
    """Floating-point operations of one training step of this model as it is now."""
    return int(ecospa.accounting.training_flops(model, sequences, sequence_length))


def flops_metrics(final_step: int, run: int) -> dict[str, Metric]:
    """One step of the final model, and the sum over all steps of the run.

    Args:
        final_step: operations of one training step of the final model.
        run: operations of all steps.
    """
    return {
        "step_flops": Metric(float(final_step), "floating-point operations", False),
        "run_flops": Metric(float(run), "floating-point operations", False),
    }
