"""EcoSpa against every other method, paired by seed: what the reviews of the paper's earlier version asked for.

Sizes and training FLOPs of both sides are shown with the difference, because who stays large longer learns more.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import Cell, compare
from paper_tables.analysis.comparability import unequal
from paper_tables.analysis.formats import NOTHING, quantity, share
from paper_tables.analysis.intervals import Interval, paired_difference
from paper_tables.analysis.losses import gap, nats, smallest
from paper_tables.analysis.precondition import SEEDS_NEEDED, told
from paper_tables.claims.multiplicity import corrected, shown
from paper_tables.claims.quality_judges import from_scratch
from paper_tables.claims.thesis import thesis_claims
from paper_tables.claims.verdicts import Verdict
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label
from results import RunRecord

NO_CLAIM = "no claim"
"""Stands for the part of the method where nothing is claimed; such a reading is not corrected."""


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per target share and other method that shares a seed with EcoSpa at that share."""
    tier = records[0].tier if records else ""
    verdicts = corrected([(claim, claim.verdict(records, tier)) for claim in thesis_claims()])
    claimed = {frozenset(verdict.records): (claim.part, verdict) for claim, verdict in verdicts}
    comparison = compare(records)
    rows = []
    for ours, theirs, effect in pairs(records):
        unclaimed = from_scratch(comparison, ours, theirs, "", ITEM.name, full_scale=False)
        part, verdict = claimed.get(frozenset((*ours.ids, *theirs.ids)), (NO_CLAIM, unclaimed))
        rows.append(_row(ours, theirs, effect, part, verdict))
    return pd.DataFrame(rows)


def pairs(records: Sequence[RunRecord]) -> list[tuple[Cell, Cell, Interval]]:
    """Return (EcoSpa's cell, other cell, nats per token of EcoSpa minus other) for every target EcoSpa was run at.

    What was trained for another number of steps, or down another curve where that is the point, is no control.
    """
    return [
        (ours, theirs, found.nats)
        for ours, theirs in _candidates(records)
        if not unequal(ours, theirs) and (found := gap(ours, theirs)) is not None
    ]


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return whether size matters at each target, and which methods are left out as trained otherwise."""
    comparison = compare(records)
    lines = [line for target in comparison.targets if (line := told(comparison, target))]
    left_out = [
        f"Not compared with {label(theirs.method)} at {share(ours.target)}: {other_training}."
        for ours, theirs in _candidates(records)
        if (other_training := unequal(ours, theirs))
    ]
    return (*lines, *left_out)


def _candidates(records: Sequence[RunRecord]) -> list[tuple[Cell, Cell]]:
    cells = compare(records).cells
    ours = (cell for cell in cells if cell.method == "ecospa" and cell.target is not None)
    found = [(own, other) for own in ours for other in cells if _is_other(own, other)]
    return sorted(found, key=lambda pair: -(pair[0].target or 0.0))


def _is_other(ours: Cell, theirs: Cell) -> bool:
    return theirs.method != "ecospa" and theirs.target in (None, ours.target)


def reading(effect: Interval) -> str:
    """Return what a difference of which nothing is claimed says, in words."""
    if effect.n < SEEDS_NEEDED:
        return f"too few seeds (n={effect.n})"
    if effect.low <= 0 <= effect.high:
        return f"cannot tell apart (n={effect.n})"
    return "EcoSpa better" if effect.high < 0 else "EcoSpa worse"


def _row(ours: Cell, theirs: Cell, effect: Interval, part: str, verdict: Verdict) -> dict[str, str]:
    beside = paired_difference(ours.values("perplexity"), theirs.values("perplexity"))
    return {
        "Blocks kept": share(ours.target),
        "EcoSpa against": label(theirs.method),
        "Part": part,
        "Nats per token": nats(effect),
        "Perplexity": NOTHING if beside is None else f"{beside.mean:+.3g}",
        "Detectable": smallest(effect) or NOTHING,
        "Holm": NOTHING if verdict.p is None or part == NO_CLAIM else shown(verdict.p),
        "Reading": verdict.reading,
        "Seeds": str(effect.n),
        "Perplexity, EcoSpa": quantity(ours.interval("perplexity")),
        "Perplexity, other": quantity(theirs.interval("perplexity")),
        "Non-zero in blocks, EcoSpa": quantity(ours.interval("block_parameters_nonzero"), "count"),
        "Non-zero in blocks, other": quantity(theirs.interval("block_parameters_nonzero"), "count"),
        "Run FLOPs, EcoSpa": quantity(ours.interval("run_flops"), "count"),
        "Run FLOPs, other": quantity(theirs.interval("run_flops"), "count"),
        RECORDS: " ".join((*ours.ids, *theirs.ids)),
    }


ITEM = Table(
    name="controls",
    title="EcoSpa against each other method",
    caption="Nats per token of EcoSpa minus those of the other method, paired by seed, with the 95% interval; below "
    "zero EcoSpa is better; perplexity: the same, without an interval. Detectable: smallest difference that as many "
    "seeds detect (two-sided 5%, power 80%). Holm: p-value, corrected for all claims of the experiment; below 0.05 "
    "it decides. No difference: the interval lies within ±0.01 nats. Cannot tell apart: it is wider, and holds 0.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    notes=notes,
    place=3,
)
