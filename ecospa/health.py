"""Failure signatures of a run that shrinks, told while it trains (paper: loss that diverges or stays up after cuts).

Pure arithmetic on steps, losses and sizes. In a plain loop, next to the two calls of CoupledSparsity:

watch = ecospa.LossWatch()
sparsity = ecospa.CoupledSparsity(model, optimizer, config, on_cut=watch.cut)
...; sparsity.after_step(); watch.observe(sparsity.step, loss.item())

`EcoSpaCallback` and `EcoSpaTrainer` have one, which reads the logged losses.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

Signature = Literal["divergence", "plateau", "reversed ranking", "irregular widths"]

_SURE = 3.0
"""Standard errors by which two mean losses have to differ before the difference counts."""
_WAY_OUT = (
    "begin later (start_step), give the target more time (end_step) or cut less per event (smaller top_k, larger "
    "importance_threshold); if the cuts are small, see whether the importance is right (ecospa.check_ranking)"
)


class FailureSignatureWarning(RuntimeWarning):
    """A run shows one of the failure signatures; the message says since when, by how much, and the way out."""


@dataclass(frozen=True)
class Finding:
    """One failure signature.

    Attributes:
        signature: which one.
        step: optimizer step at which it was told.
        since: step of the first cut that the run has not recovered from; the step itself where no cut is meant.
        before: loss before (or what a signature compares with).
        after: loss now (or what is compared).
        message: all of it in words, with the way out.
    """

    signature: Signature
    step: int
    since: int
    before: float
    after: float
    message: str


class Cut(Protocol):
    """An event as the watch needs it: a ShrinkEvent is one."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""


@dataclass(frozen=True)
class _Level:
    """Mean of some losses, and the variance of one: from successive differences, which a trend does not widen."""

    mean: float
    variance: float | None  # None of a single loss
    count: int

    @classmethod
    def of(cls, losses: list[float]) -> _Level:
        squares = [(after - before) ** 2 for before, after in pairwise(losses)]
        variance = sum(squares) / (2 * len(squares)) if squares else None
        return cls(statistics.fmean(losses), variance, len(losses))

    def error(self, other: _Level) -> float:
        """Standard error of the difference of two means; a single loss is as noisy as the others."""
        known = [level.variance for level in (self, other) if level.variance is not None]
        spare = statistics.fmean(known) if known else 0.0
        return math.sqrt(
            sum((spare if level.variance is None else level.variance) / level.count for level in (self, other))
        )


class LossWatch:
    """Tells a loss that diverges after cuts, or that stays above where it was before them.

    A run counts as recovered when the mean loss over `window` steps is back at the lowest such mean before any cut,
    within `tolerance`. Until then two signatures can be told, each once, as a FailureSignatureWarning:

    divergence: the loss is NaN or infinite, or its mean over a window after the first cut is higher by `margin`
    plateau: the run has not recovered for `patience` steps

    Differences below three standard errors of the two means never count, so a noisy loss needs a larger window.

    Args:
        window: steps of a mean; a loss that is logged less often stands for all steps since the one before it.
        patience: steps.
        tolerance: share of the loss before.
        margin: share of the loss before, larger than `tolerance`.

    Raises:
        ValueError: a value is out of range.

    Attributes:
        findings: what was told so far.

    Deviation: the paper has no such detection; its summary names the signatures, the numbers are choices.
    """

    def __init__(self, window: int = 20, patience: int = 100, tolerance: float = 0.03, margin: float = 0.1) -> None:
        if window < 1 or patience < 1:
            raise ValueError(f"window is {window} and patience {patience}; both must be at least 1 step")
        if not 0 <= tolerance < margin:
            raise ValueError(f"tolerance is {tolerance} and margin {margin}; 0 <= tolerance < margin must hold")
        self.window, self.patience, self.tolerance, self.margin = window, patience, tolerance, margin
        self.findings: list[Finding] = []
        self._losses: deque[tuple[int, int, float]] = deque(maxlen=2 * window)  # steps done before and with it, loss
        self._last = 0
        self._best: _Level | None = None
        self._since: int | None = None  # first cut that the run has not recovered from
        self._compared = False  # with what was before that cut
        self._told: set[Signature] = set()

    def cut(self, event: Cut) -> None:
        """Call after every cut, before the losses of the steps that follow: as `on_cut` of CoupledSparsity.

        Args:
            event: of the cut.
        """
        if self._since is None:
            self._since, self._compared = event.step, False

    def observe(self, step: int, loss: float) -> tuple[Finding, ...]:
        """Take the training loss of a step, or the mean over the steps since the last one that was given.

        Args:
            step: optimizer steps done with it.
            loss: in nats or any other unit.

        Returns:
            What was told now.
        """
        if step <= self._last:  # another run, or an earlier checkpoint of this one
            self._losses.clear()
            self._since, self._last = None, step - 1
        first, self._last = self._last, step
        after_cut = self._since is not None and step > self._since
        if after_cut and not self._compared:
            self._compare()
        if not math.isfinite(loss):
            return self._tell("divergence", step, loss) if after_cut else ()
        self._losses.append((first, step, loss))
        if self._since is None or not after_cut or self._best is None:
            return ()
        now = self._level(self._since, step)
        return () if now is None else self._judged(self._best, now, step)

    def _compare(self) -> None:
        """Take the level before the first cut; one over less than a window only where there is no other."""
        assert self._since is not None
        self._compared = True
        level = self._level(-1, self._since)
        if level is not None and (self._best is None or level.mean < self._best.mean):
            self._best = level
        before = [loss for _, last, loss in self._losses if last <= self._since]
        if self._best is None and before:
            self._best = _Level.of(before)

    def _judged(self, best: _Level, now: _Level, step: int) -> tuple[Finding, ...]:
        assert self._since is not None
        noise, rise = _SURE * best.error(now), now.mean - best.mean
        if rise <= max(self.tolerance * abs(best.mean), noise):
            self._since, self._told = None, set()
            return ()
        diverges = rise > max(self.margin * abs(best.mean), noise)
        found = self._tell("divergence", step, now.mean) if diverges else ()
        return found + (self._tell("plateau", step, now.mean) if step - self._since >= self.patience else ())

    def _level(self, since: int, until: int) -> _Level | None:
        """Mean over the last window of the losses of steps after `since` and up to `until`, if they fill one."""
        losses: list[float] = []
        span = 0
        for first, last, loss in reversed(self._losses):
            if last > until:
                continue
            if first < since:
                break
            losses.append(loss)
            span += last - first
            if span >= self.window:
                return _Level.of(losses)
        return None

    def _tell(self, signature: Signature, step: int, after: float) -> tuple[Finding, ...]:
        if signature in self._told or self._since is None:
            return ()
        self._told.add(signature)
        before = math.nan if self._best is None else self._best.mean
        told = f"step {step}: {signature} after the cut at step {self._since}: the loss is {after:.4g}"
        told += "" if self._best is None else f", and was {before:.4g} before"
        told += f"; it has not come back for {step - self._since} steps" if signature == "plateau" else ""
        found = Finding(signature, step, self._since, before, after, f"{told}; {_WAY_OUT}")
        self.findings.append(found)
        warnings.warn(found.message, FailureSignatureWarning, stacklevel=3)
        return (found,)
