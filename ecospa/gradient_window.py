"""GradientWindow: which gradients count, when a loop shows more of them than the optimizer uses.

The estimate for an event is a mean over optimizer steps. With gradient accumulation a loop shows the growing gradient
after every micro-batch, and with loss scaling it shows gradients of steps that are skipped; neither counts as a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecospa.estimator import ImportanceEstimator
from ecospa.step_counter import StepCounter


class GradientWindow:
    """Adds gradients to an estimator, one reading per optimizer step: of several the last.

    Args:
        estimator: what adds them up.
        counter: tells whether the optimizer stepped between two readings.
    """

    def __init__(self, estimator: ImportanceEstimator, counter: StepCounter) -> None:
        self.estimator, self._counter = estimator, counter
        self._before: Any = None
        self._taken_at = 0

    def measure(self) -> None:
        """Add the gradients of now, in the place of those that were measured since the last optimizer step."""
        self._counter.leave_step()
        if self._before is not None and self._counter.total == self._taken_at:
            self.estimator.rewind(self._before)
        self._before, self._taken_at = self.estimator.mark(), self._counter.total
        self.estimator.update()

    def commit(self) -> None:
        """The optimizer has stepped: what was measured stays."""
        self._before = None

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: the estimator, and apart from it what no optimizer step has used yet."""
        if self._before is None:
            return {"estimator": self.estimator.state_dict()}
        now, measured = self.estimator.mark(), self.estimator.state_dict()
        self.estimator.rewind(self._before)
        settled = self.estimator.state_dict()
        self.estimator.rewind(now)
        stepped = self._counter.total > self._taken_at
        return {"estimator": settled, "measured": {**measured, "stepped": stepped}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the window that `state_dict` described.

        Raises:
            ValueError: the state belongs to another number of matrices.
        """
        self._before = None
        self.estimator.load_state_dict(state["estimator"])
        if (measured := state.get("measured")) is not None:  # earlier releases wrote none
            before = self.estimator.mark()
            self.estimator.load_state_dict(measured)
            if not measured["stepped"]:
                self._before, self._taken_at = before, self._counter.total
