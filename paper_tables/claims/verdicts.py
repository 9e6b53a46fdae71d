"""Verdict on a claim, decided by intervals and nothing else.

A claim is turned into an effect for which less is better (loss of ours minus theirs, our time over theirs) and a
neutral value (0 or 1). Three seeds at least. An interval that contains the neutral value tells nothing apart, unless it
is so narrow that no difference is what it shows. Below the paper's own scale the most a claim can get is "direction
holds at reduced scale", and a loss says "at reduced scale", too. What holds of one comparison among many by chance is
taken back by `paper_tables.claims.multiplicity`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from paper_tables.analysis.intervals import Interval, p_equivalent, p_value
from paper_tables.analysis.losses import smallest
from paper_tables.analysis.precondition import SEEDS_NEEDED
from results import RunRecord

REPRODUCED = "reproduced"
SMALLER = "direction holds, smaller than published"
UNSIZED = "direction holds, size uncertain"
DIRECTION = "direction holds at reduced scale"
NO_DIFFERENCE = "no difference"
UNDECIDED = "cannot tell apart"
NOT_REPRODUCED = "not reproduced"
CANNOT_DECIDE = "cannot decide here"
MEASURED = "measured"
NOT_RUN = "not run"
KINDS = (
    *(REPRODUCED, SMALLER, UNSIZED, DIRECTION, NO_DIFFERENCE, UNDECIDED, NOT_REPRODUCED, CANNOT_DECIDE),
    *(MEASURED, NOT_RUN),
)
DECIDED = (REPRODUCED, SMALLER, UNSIZED, DIRECTION, NO_DIFFERENCE, NOT_REPRODUCED)
"""Kinds that say something is so, and may say so by chance."""
_READINGS = {
    **dict.fromkeys((REPRODUCED, SMALLER, UNSIZED, DIRECTION), "EcoSpa better"),
    **{NO_DIFFERENCE: NO_DIFFERENCE, UNDECIDED: UNDECIDED, NOT_REPRODUCED: "EcoSpa worse"},
}

_NEGLIGIBLE = 0.1
"""Share of a published effect below which a difference is none."""
_INFORMATIVE = 0.5
"""Share of a published effect that half of an interval must stay below to say that it was reproduced."""


@dataclass(frozen=True)
class Verdict:
    """One of KINDS with what explains it, and what it is made from.

    Attributes:
        kind: of KINDS.
        detail: what explains it.
        measured: the effect as text.
        n: seeds.
        records: ids.
        controls: verdicts of a headline's controls, by name.
        experiment: whose claims share the probability of an error; empty where nothing was tested.
        p: p-value of what the kind says, before it is adjusted for the other claims; None where nothing was tested.
        full_scale: whether it was measured at the scale of a published number.
    """

    kind: str
    detail: str = ""
    measured: str = ""
    n: int = 0
    records: tuple[str, ...] = ()
    controls: tuple[tuple[str, Verdict], ...] = ()
    experiment: str = ""
    p: float | None = None
    full_scale: bool = False

    @property
    def text(self) -> str:
        """Return the verdict as printed: "not run (needs ...)"."""
        return f"{self.kind} ({self.detail})" if self.detail else self.kind

    @property
    def reading(self) -> str:
        """Return what the verdict says of EcoSpa against a control, in words."""
        return _READINGS.get(self.kind, self.text)

    @property
    def control_lines(self) -> tuple[str, ...]:
        """Return what is printed of each control: what was measured against it, and how that reads."""
        return tuple(
            f"against {name}: {verdict.measured} ({verdict.reading})" if verdict.measured else f"{name}: not run"
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
    A mechanical one follows from the size alone, as that a smaller model is faster: at the paper's scale a published
    number can be judged, at any other it is a measured fact and no verdict on the paper. `part` is the part of the
    method that the claim is about, where it is about one.
    """

    statement: str
    source: str
    published: str
    headline: bool
    judge: Judge
    controls: Controls = ()
    mechanical: bool = False
    part: str = ""

    def verdict(self, records: Sequence[RunRecord], tier: str) -> Verdict:
        """Return the verdict from the finished records of one tier, with those of the controls."""
        beside = tuple((name, judge(records, tier)) for name, judge in self.controls)
        own = self.judge(records, tier)
        if self.mechanical and own.kind in (*DECIDED, UNDECIDED) and not own.full_scale:
            own = replace(own, kind=MEASURED, detail=f"n={own.n}", p=None)
        return replace(own, controls=beside)


class Ruling(NamedTuple):
    """Kind and detail of a verdict, and the p-value of what the kind says; None where nothing was tested."""

    kind: str
    detail: str
    p: float | None = None


def ruled(
    effect: Interval,
    neutral: float,
    measured: str,
    records: tuple[str, ...],
    *,
    experiment: str,
    full_scale: bool,
    published: float | None = None,
    margin: float = 0.0,
    flaw: str = "",
) -> Verdict:
    """Return the verdict on an `effect` for which less is better.

    Args:
        effect: as for `decide`.
        neutral: as for `decide`.
        measured: the effect as text; the smallest detectable difference is put behind it.
        records: ids behind the effect.
        experiment: whose claims share the probability of an error.
        full_scale: as for `decide`.
        published: as for `decide`.
        margin: as for `decide`.
        flaw: the reason why the records cannot carry a verdict; empty where they can.
    """
    seen = smallest(effect)
    text = f"{measured}; detectable {seen}" if seen else measured
    ruling = decide(effect, neutral, full_scale=full_scale, published=published, margin=margin)
    if flaw and ruling.kind != NOT_RUN:
        ruling = Ruling(CANNOT_DECIDE, f"{flaw}, n={effect.n}")
    at_scale = full_scale and published is not None
    return Verdict(
        ruling.kind, ruling.detail, text, effect.n, records, experiment=experiment, p=ruling.p, full_scale=at_scale
    )


def decide(
    effect: Interval, neutral: float, *, full_scale: bool, published: float | None = None, margin: float = 0.0
) -> Ruling:
    """Return kind, detail and p-value for an `effect` for which less is better.

    No difference is shown by an interval inside of the margin, a tenth of the published effect where there is one. At
    full scale a published effect is reproduced by an interval that is clear of the neutral value, reaches it, and is
    informative: half of its width is less than half of the effect, because a wide interval reaches anything; or all of
    it lies beyond. An interval that ends before the published effect rules it out. At a reduced scale the size of an
    effect is not the published one's to tell.

    Args:
        effect: mean and 95% interval over seeds.
        neutral: the value that means "no difference".
        full_scale: whether it was measured at the scale of the claim.
        published: the size of the effect that was claimed; None where only its direction was.
        margin: distance from the neutral value that is no difference, where no effect was published.
    """
    seeds = f"n={effect.n}"
    if effect.n < SEEDS_NEEDED:
        return Ruling(NOT_RUN, f"n too small: needs {SEEDS_NEEDED} seeds, has {effect.n}")
    scale = "" if full_scale else " at reduced scale"
    room = margin if published is None else _NEGLIGIBLE * abs(published - neutral)
    if neutral - room < effect.low and effect.high < neutral + room:
        return Ruling(NO_DIFFERENCE, f"within ±{room:.2g}, {seeds}", p_equivalent(effect, neutral, room))
    p = p_value(effect, neutral)
    if effect.low <= neutral <= effect.high:
        if full_scale and published is not None and effect.low > published:
            return Ruling(NOT_REPRODUCED, f"no effect of that size is measured, {seeds}", p_value(effect, published))
        return Ruling(UNDECIDED, seeds, p)
    if effect.low > neutral:
        return Ruling(NOT_REPRODUCED, f"the opposite is measured{scale}, {seeds}", p)
    if published is None:
        return Ruling(REPRODUCED if full_scale else DIRECTION, seeds, p)
    part = f"{(effect.mean - neutral) / (published - neutral):.0%} of the published effect, {seeds}"
    return Ruling(_sized(effect, abs(published - neutral), published) if full_scale else DIRECTION, part, p)


def _sized(effect: Interval, size: float, published: float) -> str:
    """Return the kind for an interval that is clear of the neutral value, on the published side, at full scale."""
    if effect.low > published:
        return SMALLER
    informative = effect.half_width < _INFORMATIVE * size or effect.high <= published
    return REPRODUCED if informative else UNSIZED


def needs(what: str) -> Verdict:
    """Return the verdict of a claim without records: not run, and what it takes."""
    return Verdict(NOT_RUN, f"needs {what}")
