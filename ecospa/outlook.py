"""Reach of a run of a known number of steps, reported before its first step instead of after its last."""

from __future__ import annotations

from dataclasses import replace

from ecospa.config import EcoSpaConfig
from ecospa.forecast import Simulation
from ecospa.sparsity import CoupledSparsity

_ROUNDS = 2000
"""Events after which an outlook gives up: K and theta that need more cut next to nothing."""


def outlook(sparsity: CoupledSparsity, steps: int) -> str | None:
    """Return why a run will not reach its target, with values that would; None where it should.

    The pace of K and theta is foreseen as `ecospa.forecast` does it, with all pairs equally important; a real run cuts
    a little faster or slower.

    Args:
        sparsity: at the start of a run, or of its continuation.
        steps: optimizer steps that the whole run will have done at its end.
    """
    config = sparsity.config
    if sparsity.finished:
        return None
    asked = f"the run ends after {steps} optimizer steps and asks for target_size {config.target_size:g}"
    if config.start_step >= steps:
        return f"{asked}, but start_step is {config.start_step}, so nothing will be cut; use a start_step below {steps}"
    if config.end_step is not None and config.end_step > steps:
        return (
            f"{asked}, but end_step is {config.end_step}, so the target lies beyond the end; use an end_step of at "
            f"most {steps}"
        )
    promised = config.pace == "curve" or (config.end_step is not None and config.interval is None)
    return None if promised else _too_few_events(sparsity, steps, asked)


def _too_few_events(sparsity: CoupledSparsity, steps: int, asked: str) -> str | None:
    foreseen = _simulation(sparsity, sparsity.config)
    events = sum(1 for _ in foreseen.events(steps, sparsity.step))
    if foreseen.landed:
        return None
    size = foreseen.size / foreseen.sparsifier.full_size
    every = replace(sparsity.config, interval=1, end_step=None)
    needed = list(_simulation(sparsity, every).events(sparsity.step + _ROUNDS, sparsity.step))
    left = steps - max(sparsity.step, sparsity.config.start_step)
    rounds = needed[-1] - max(sparsity.step, sparsity.config.start_step) if needed else _ROUNDS
    fits = f"interval={left // rounds} or " if left // rounds >= 1 else ""
    return (
        f"{asked}, but about {events} events that cut fit and leave {size:.2f}; about {rounds} are needed. Use "
        f"{fits}end_step={steps} without an interval (which spaces the events and lands there), more steps, or a "
        "larger top_k"
    )


def _simulation(sparsity: CoupledSparsity, config: EcoSpaConfig) -> Simulation:
    # the rule is known by now; "auto" would measure again
    return Simulation(sparsity.model, replace(config, width_multiple=sparsity.sparsifier.rule), sparsity.sparsifier)
