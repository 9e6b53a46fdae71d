"""Dense training: the model stays whole for all steps. The upper control, at equal steps, not at equal cost.

Source: the dense rows of the paper's pre-training tables. Nothing is simplified, because nothing is done.
"""

from __future__ import annotations

from typing import ClassVar

from baselines.method import TrainingMethod


class Dense(TrainingMethod):
    """Trains the model as it is; the budget's target is not looked at."""

    name: ClassVar[str] = "dense"
    title = "dense"
    removes = "nothing"
    group = "dense control"
    reads_gradients: ClassVar[bool] = False
