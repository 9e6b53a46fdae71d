"""Verdict on a claim, decided by an interval and nothing else.

A claim is turned into an effect for which less is better (perplexity of ours minus theirs, our time over theirs) and a
neutral value (0 or 1). Three seeds at least; an interval that contains the neutral value shows no difference, unless it
is so narrow that it rules the published effect out, which is a result as losing is, and is said. Below the paper's own
scale the most a claim can get is "direction holds at reduced scale", and a loss says "at reduced scale", too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from paper_tables.analysis.intervals import Interval
from results import RunRecord

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
DIRECTION = "direction holds at reduced scale"
NO_DIFFERENCE = "no difference shown"
NOT_RUN = "not run"
KINDS = (REPRODUCED, DIRECTION, NO_DIFFERENCE, NOT_REPRODUCED, NOT_RUN)
_READINGS = {
    REPRODUCED: "EcoSpa better",
    DIRECTION: "EcoSpa better",
    NO_DIFFERENCE: NO_DIFFERENCE,
    NOT_REPRODUCED: "EcoSpa worse",
}

SEEDS_NEEDED = 3
_NEGLIGIBLE = 0.1
"""Share of a published effect that a reduced scale has to show, or it shows none."""


@dataclass(frozen=True)
class Verdict:
    """One of KINDS with what explains it, the measured effect as text, seeds, record ids, and verdicts of controls."""

    kind: str
    detail: str = ""
    measured: str = ""
    n: int = 0
    records: tuple[str, ...] = ()
    controls: tuple[tuple[str, Verdict], ...] = ()

    @property
    def text(self) -> str:
        """Return the verdict as printed: "not run (needs ...)"."""
        return f"{self.kind} ({self.detail})" if self.detail else self.kind

    @property
    def control_lines(self) -> tuple[str, ...]:
        """Return what is printed of each control: what was measured against it, and how that reads."""
        return tuple(
            f"against {name}: {verdict.measured} ({_READINGS.get(verdict.kind, verdict.text)})"
            if verdict.measured
            else f"{name}: not run"
            for name, verdict in self.controls
        )

    @property
    def all_records(self) -> tuple[str, ...]:
        """Return the records behind the verdict and its controls, each once."""
        return tuple(dict.fromkeys((*self.records, *(id for _, own in self.controls for id in own.records))))


Judge = Callable[[Sequence[RunRecord], str], Verdict]
"""From the finished records of one tier, and the tier, to a verdict."""

Controls = tuple[tuple[str, Judge], ...]
"""Further models that a headline's is compared with, and how."""


@dataclass(frozen=True)
class Claim:
    """A statement, who makes it (source with evidence tag, "control" for what the reviews asked for), and its judge.

    A headline has controls beside it: what EcoSpa's model is worth against others that cost as much, by a judge each.
    """

    statement: str
    source: str
    published: str
    headline: bool
    judge: Judge
    controls: Controls = ()

    def verdict(self, records: Sequence[RunRecord], tier: str) -> Verdict:
        """Return the verdict from the finished records of one tier, with those of the controls."""
        beside = tuple((name, judge(records, tier)) for name, judge in self.controls)
        return replace(self.judge(records, tier), controls=beside)


def decide(effect: Interval, neutral: float, *, full_scale: bool, published: float | None = None) -> tuple[str, str]:
    """Return kind and detail for an `effect` for which less is better.

    At full scale a published effect is reproduced if the interval reaches it without reaching the neutral value. Both
    together mean that the mean has more than half of it, because an interval is as wide to both sides: a wide interval
    alone, which reaches anything, cannot reproduce a number. An interval that ends before the published effect rules
    it out. At a reduced scale the size of an effect is not the published one's to tell; but an interval around the
    neutral value that ends before a tenth of it says that there is none.

    Args:
        effect: mean and 95% interval over seeds.
        neutral: the value that means "no difference".
        full_scale: whether it was measured at the scale of the claim.
        published: the size of the effect that was claimed; None where only its direction was.
    """
    seeds = f"n={effect.n}"
    if effect.n < SEEDS_NEEDED:
        return NOT_RUN, f"needs {SEEDS_NEEDED} seeds, has {effect.n}"
    scale = "" if full_scale else " at reduced scale"
    if effect.low <= neutral <= effect.high:
        visible = 1.0 if full_scale else _NEGLIGIBLE
        if published is not None and effect.low > neutral + visible * (published - neutral):
            return NOT_REPRODUCED, f"no effect{' of that size' if full_scale else ''} is measured{scale}, {seeds}"
        return NO_DIFFERENCE, seeds
    if effect.low > neutral:
        return NOT_REPRODUCED, f"the opposite is measured{scale}, {seeds}"
    if not full_scale:
        return DIRECTION, seeds
    if published is None or effect.low <= published:
        return REPRODUCED, seeds
    return NOT_REPRODUCED, f"same direction, smaller effect, {seeds}"


def needs(what: str) -> Verdict:
    """Return the verdict of a claim without records: not run, and what it takes."""
    return Verdict(NOT_RUN, f"needs {what}")
