"""Schedule of events, and the size due at each (paper: gradual sparsification during training until the target size).

Pure arithmetic on step numbers and sizes: the state of a run is kept by `CoupledSparsity`.
"""

from __future__ import annotations

import math

from ecospa.config import ConfigError, EcoSpaConfig

DEFAULT_INTERVAL = 100


class Schedule:
    """Events every `interval` steps after `start_step`, and the size that the curve allows at a step.

    linear: S(t) = S_0 + (S_1 - S_0) p          cubic: S(t) = S_1 + (S_0 - S_1) (1 - p)^3
    with p = (t - start) / (end - start), S_0 the full and S_1 the target size in parameters

    Args:
        config: interval, start_step, end_step, pace and curve.
        full_size: parameters in the target scope before the first event, of a run on a model that has been cut before
            fewer than the dense model's.
        target_size: parameters in the target scope at the end.

    Raises:
        ConfigError: the target is above the full size.

    Source: gradual, as the paper; the cubic form is equation 1 of Zhu and Gupta (arXiv 1710.01878).
    Deviation: where `end_step` is given and `interval` is not, the paper pace spaces its events so that the target is
    reached by `end_step`, from the rate at which they cut so far.
    """

    def __init__(self, config: EcoSpaConfig, full_size: int, target_size: int) -> None:
        if target_size > full_size:
            raise ConfigError(f"target_size is {target_size} parameters, more than the model's {full_size}")
        self.config = config
        self.full_size = full_size
        self.target_size = target_size

    @property
    def curve_interval(self) -> int:
        """Steps between two events at the curve's pace: `interval`, or as many as give about 40 events."""
        config = self.config
        if config.interval is not None:
            return config.interval
        if config.end_step is None:
            return DEFAULT_INTERVAL
        return max(1, (config.end_step - config.start_step) // 40)

    def due(self, step: int) -> bool:
        """Return whether an event is due after `step` optimizer steps, at a fixed interval."""
        past = step - self.config.start_step
        if past <= 0:
            return False
        return past % self.curve_interval == 0 or (self.config.pace == "curve" and step == self.config.end_step)

    def next_due(self, step: int) -> int:
        """The first step after `step` at which an event is due at a fixed interval, or `end_step` before it."""
        start, interval = self.config.start_step, self.curve_interval
        following = start + (max(step - start, 0) // interval + 1) * interval
        last = following if self.config.end_step is None else self.config.end_step
        return max(step + 1, min(following, last))

    def goal(self, step: int) -> int:
        """Size in parameters that the curve allows after `step` optimizer steps."""
        config = self.config
        if config.end_step is None:
            raise ConfigError("end_step is None; a size curve needs the step at which the target is reached")
        progress = min(1.0, max(0.0, (step - config.start_step) / (config.end_step - config.start_step)))
        left = 1 - progress if config.curve == "linear" else (1 - progress) ** 3
        return self.target_size + math.ceil(left * (self.full_size - self.target_size) - 1e-9)

    def next_event(self, step: int, size: int, events: int) -> int:
        """Optimizer step of the next event of the paper's pace.

        With an `interval` it is the next multiple. Without one but with `end_step`, the events that are still needed,
        n = log(target / size) / log(1 - rate), are spread evenly over the steps that are left; rate is the mean share
        that an event has cut so far, at first K (1 - theta).

        Args:
            step: optimizer steps done.
            size: parameters in the target scope now.
            events: events so far.

        Returns:
            Step number greater than `step`.
        """
        config = self.config
        start = max(step, config.start_step)
        if config.interval is not None or config.end_step is None:
            interval = config.interval or DEFAULT_INTERVAL
            return start + interval - (start - config.start_step) % interval
        left = config.end_step - start
        if left <= 1:
            return start + 1
        rate = config.top_k * (1 - config.importance_threshold)
        if events > 0 and size < self.full_size:
            rate = -math.expm1(math.log(size / self.full_size) / events)
        if rate <= 0 or self.target_size <= 0:  # K and theta so gentle that their product is no number
            return start + 1
        needed = max(1, math.ceil(math.log(self.target_size / size) / math.log1p(-rate)))
        return start + max(1, left // needed)

    def must_land(self, step: int) -> bool:
        """Return whether an event after `step` steps has to reach the target whatever K and theta say."""
        config = self.config
        promised = config.end_step is not None and (config.pace == "curve" or config.interval is None)
        return promised and config.end_step is not None and step >= config.end_step
