"""Differences between language models in nats per token, paired by seed, with the perplexity for people.

A loss is what training lowers and what noise spreads evenly; a difference in perplexity grows with the perplexity
itself, so that its size depends on the text as much as on the method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.formats import NOTHING, difference
from paper_tables.analysis.intervals import Interval, detectable, paired_difference

MARGIN = 0.01
"""Nats per token below which a difference is none: 1% of the perplexity, less than what seeds differ by."""


@dataclass(frozen=True)
class Gap:
    """Ours minus theirs: in nats per token, and in perplexity."""

    nats: Interval
    perplexity: Interval | None

    @property
    def text(self) -> str:
        """Return both as printed: "-0.0231 [-0.0310, -0.0152] nats (perplexity -0.65)"."""
        beside = "" if self.perplexity is None else f" (perplexity {self.perplexity.mean:+.3g})"
        return f"{nats(self.nats)} nats{beside}"


def losses(cell: Cell, perplexity: str = "perplexity") -> dict[int, float]:
    """Return nats per token by seed: the loss on held-out text, or the logarithm of a perplexity, which is the same.

    Args:
        cell: of a language model.
        perplexity: metric that stands in for the loss; another one than "perplexity" has no loss of its own.
    """
    found = cell.values("eval_loss") if perplexity == "perplexity" else {}
    given = cell.values(perplexity)
    return {seed: math.log(value) for seed, value in given.items() if value > 0} | found


def gap(ours: Cell, theirs: Cell, metrics: tuple[str, str] = ("perplexity", "perplexity")) -> Gap | None:
    """Return ours minus theirs over the seeds that both have; None if they share none.

    Args:
        ours: left side.
        theirs: right side.
        metrics: perplexities of either side.
    """
    left, right = metrics
    found = paired_difference(losses(ours, left), losses(theirs, right))
    return None if found is None else Gap(found, paired_difference(ours.values(left), theirs.values(right)))


def nats(interval: Interval) -> str:
    """Return a difference in nats to four decimals, with its interval; "+0.0012" for one seed."""
    if not math.isfinite(interval.mean):
        return difference(interval)
    if math.isinf(interval.half_width):
        return f"{interval.mean:+.4f}"
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def smallest(interval: Interval, digits: int = 2) -> str:
    """Return the smallest detectable difference as printed; empty for one seed, and for seeds that do not differ."""
    found = detectable(interval)
    return f"{found:.{digits}g}" if found else ""


def against(ours: Cell, theirs: Cell | None) -> str:
    """Return ours minus theirs in nats as a table shows it; NOTHING for a model and itself, or without shared seeds."""
    found = None if theirs is None or theirs.method == ours.method else gap(ours, theirs)
    return NOTHING if found is None else nats(found.nats)
