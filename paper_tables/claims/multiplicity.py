"""Holm's correction over the claims of an experiment: of forty comparisons two are clear of zero by chance alone.

A claim stays decided where its adjusted p-value is below LEVEL. A comparison that two claims share, as a headline's
control and the claim about that control, is one hypothesis. Source: Holm, Scandinavian Journal of Statistics 6 (1979).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from paper_tables.claims.verdicts import DECIDED, UNDECIDED, Claim, Verdict

LEVEL = 0.05
Key = TypeVar("Key", bound=Hashable)
Hypothesis = tuple[frozenset[str], str, int]
"""Records that were compared, effect as text, and a number: several claims may come from one set of records."""
Families = Mapping[str, Mapping[Hypothesis, float]]


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Return the adjusted p-values: p_(i) of m in rising order becomes max over j <= i of min(1, (m - j + 1) p_(j)).

    Args:
        p_values: one per hypothesis.
    """
    adjusted, highest = {}, 0.0
    for place, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[key]))
        adjusted[key] = highest
    return adjusted


def corrected(judged: Sequence[tuple[Claim, Verdict]]) -> list[tuple[Claim, Verdict]]:
    """Return the claims with the verdicts that stand after the correction, those of controls, too."""
    families: defaultdict[str, dict[Hypothesis, float]] = defaultdict(dict)
    places = _places([verdict for _, verdict in judged])
    for (_, verdict), place in zip(judged, places, strict=True):
        if verdict.p is not None:
            families[verdict.experiment][_hypothesis(verdict, place)] = verdict.p
    for _, verdict in judged:
        for _, control in verdict.controls:
            if control.p is not None:
                families[control.experiment].setdefault(_hypothesis(control, 0), control.p)
    adjusted = {name: holm(p_values) for name, p_values in families.items()}
    return [
        (claim, _with_controls(verdict, place, adjusted))
        for (claim, verdict), place in zip(judged, places, strict=True)
    ]


def _places(verdicts: Sequence[Verdict]) -> list[int]:
    """Return how many claims of the same records and effect stand before each."""
    seen: Counter[Hypothesis] = Counter()
    places = []
    for verdict in verdicts:
        places.append(seen[_hypothesis(verdict, 0)])
        seen[_hypothesis(verdict, 0)] += 1
    return places


def shown(p: float) -> str:
    """Return a p-value as printed: two digits, none below a thousandth."""
    return "p<0.001" if p < 0.001 else f"p={p:.2g}"


def _with_controls(verdict: Verdict, place: int, adjusted: Families) -> Verdict:
    controls = tuple((name, _corrected(control, 0, adjusted)) for name, control in verdict.controls)
    return replace(_corrected(verdict, place, adjusted), controls=controls)


def _corrected(verdict: Verdict, place: int, adjusted: Families) -> Verdict:
    if verdict.p is None:
        return verdict
    family = adjusted[verdict.experiment]
    p = family[_hypothesis(verdict, place)]
    stands = verdict.kind not in DECIDED or p < LEVEL
    alone = "" if stands else f"alone: {verdict.kind}, "
    detail = f"{alone}{verdict.detail}, Holm {shown(p)} of {len(family)}"
    return replace(verdict, kind=verdict.kind if stands else UNDECIDED, detail=detail, p=p)


def _hypothesis(verdict: Verdict, place: int) -> Hypothesis:
    return frozenset(verdict.records), verdict.measured, place
