"""The answer in five sentences: what a reader wants to know first, made from the verdicts and from nothing else.

Does the choice of pairs beat random and uniform ones and a small dense model of equal cost; does the way to a shape
beat the shape itself; memory; time; and what is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from paper_tables.analysis.formats import share
from paper_tables.claims.thesis import TARGETS, statement
from paper_tables.claims.verdicts import (
    CANNOT_DECIDE,
    DIRECTION,
    MEASURED,
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    SMALLER,
    UNDECIDED,
    UNSIZED,
    Claim,
    Verdict,
)

Judged = Sequence[tuple[Claim, Verdict]]

SELECTION = (
    ("random_pairs", "random pairs"),
    ("uniform_pairs", "uniform pairs"),
    ("small_dense", "a small dense model at equal steps"),
    ("small_dense_equal_flops", "one at equal training FLOPs"),
)
SHAPE = (
    ("final_shape", "a fresh model in its final shape at equal steps"),
    ("final_shape_other_seed", "one in the shape of another seed"),
    ("final_shape_equal_flops", "one at equal training FLOPs"),
)
_BEATS, _UNSURE = "beats", "cannot be told from"
_VERBS = {
    **dict.fromkeys((REPRODUCED, SMALLER, UNSIZED, DIRECTION), _BEATS),
    NO_DIFFERENCE: "is level with",
    UNDECIDED: _UNSURE,
    NOT_REPRODUCED: "loses to",
    CANNOT_DECIDE: "is not to be compared yet with",
    NOT_RUN: "was not run against",
}
_SETTING = re.compile(r"(; \w+ decides)?,? at \d+% of the block parameters(, batch \d+, \d+ tokens)?")
_SAID = {NOT_RUN: "not run", CANNOT_DECIDE: "cannot be decided here"}


def sentences(judged: Judged, tier: str) -> tuple[str, ...]:
    """Return the five sentences.

    Args:
        judged: all claims with their verdicts.
        tier: that they are of.
    """
    verdicts = {claim.statement: verdict for claim, verdict in judged}
    headlines = [(claim, verdict) for claim, verdict in judged if claim.headline]
    target = _decided_target(verdicts)
    return (
        f"Choice of pairs, {share(target)} of the blocks kept: {_compared(SELECTION, verdicts, target)}.",
        f"Shape or way there: {_compared(SHAPE, verdicts, target)}.",
        _measured("Memory", headlines, "memory"),
        _measured("Time", headlines, "less time", "infers"),
        _unknown(judged, tier),
    )


def _decided_target(verdicts: Mapping[str, Verdict]) -> float:
    """Return the target of the first sentences: that with the most seeds behind it, the smaller one of equals."""

    def seeds(target: float) -> tuple[int, float]:
        of_target = (verdicts.get(statement(other, target)) for other, _ in SELECTION)
        return sum(verdict.n for verdict in of_target if verdict is not None), -target

    return max(TARGETS, key=seeds)


def _compared(others: Sequence[tuple[str, str]], verdicts: Mapping[str, Verdict], target: float) -> str:
    """Return "EcoSpa beats A (-0.06 nats) and B (-0.02 nats); loses to C (+0.05 nats)"."""
    groups: dict[str, list[str]] = {}
    for other, name in others:
        verdict = verdicts.get(statement(other, target), Verdict(NOT_RUN))
        effect, unit, _ = verdict.measured.partition(" nats")
        size = f" ({effect.partition(' ')[0]} nats)" if unit else ""
        groups.setdefault(_VERBS[verdict.kind], []).append(f"{name}{size}")
    return "EcoSpa " + "; ".join(f"{verb} {_listed(names)}" for verb, names in groups.items())


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _measured(topic: str, headlines: Judged, *words: str) -> str:
    """Return what was measured of the headlines whose statement has one of the words, and what is published."""
    parts = []
    for claim, verdict in headlines:
        if not any(word in claim.statement for word in words):
            continue
        effect = brief(verdict.measured) or "nothing measured"
        reading = "mechanical" if verdict.kind == MEASURED else _SAID.get(verdict.kind, verdict.kind)
        parts.append(f"{effect} (published {claim.published.split()[-1]}: {reading})")
    return f"{topic}: {'; '.join(parts) or 'not run'}."


def brief(measured: str) -> str:
    """Return a measured effect without its setting and the smallest detectable difference, which a table has room for.

    Args:
        measured: as a verdict has it.
    """
    return _SETTING.sub("", measured.partition("; detectable")[0])


def _unknown(judged: Judged, tier: str) -> str:
    kinds = [verdict.kind for _, verdict in judged]
    unsound, undecided, absent = (kinds.count(kind) for kind in (CANNOT_DECIDE, UNDECIDED, NOT_RUN))
    scale = "" if tier == "paper" else "anything at the paper's sizes, for which this is too small; "
    return (
        f"Not known: {scale}of {len(kinds)} claims {absent} were not run, {unsound} cannot be decided by these records "
        f"and {undecided} are too close to tell."
    )
