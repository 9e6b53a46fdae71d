"""EcoSpa against every other method, paired by seed: what the reviews of the paper's earlier version asked for.

Sizes and training FLOPs of both sides are shown with the difference, because who stays large longer learns more.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import Cell, compare
from paper_tables.analysis.comparability import unequal
from paper_tables.analysis.formats import difference, quantity, share
from paper_tables.analysis.intervals import Interval, paired_difference
from paper_tables.claims.verdicts import SEEDS_NEEDED
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label
from results import RunRecord


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per target share and other method that shares a seed with EcoSpa at that share."""
    return pd.DataFrame([_row(ours, theirs, effect) for ours, theirs, effect in pairs(records)])


def pairs(records: Sequence[RunRecord]) -> list[tuple[Cell, Cell, Interval]]:
    """Return (EcoSpa's cell, other cell, perplexity of EcoSpa minus other) for every target share EcoSpa was run at.

    What was trained for another number of steps, or down another curve where that is the point, is no control.
    """
    return [
        (ours, theirs, effect)
        for ours, theirs in _candidates(records)
        if not unequal(ours, theirs)
        and (effect := paired_difference(ours.values("perplexity"), theirs.values("perplexity"))) is not None
    ]


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return which methods are left out because they were trained otherwise, and how."""
    return tuple(
        f"Not compared with {label(theirs.method)} at {share(ours.target)}: {other_training}."
        for ours, theirs in _candidates(records)
        if (other_training := unequal(ours, theirs))
    )


def _candidates(records: Sequence[RunRecord]) -> list[tuple[Cell, Cell]]:
    cells = compare(records).cells
    ours = (cell for cell in cells if cell.method == "ecospa" and cell.target is not None)
    found = [(own, other) for own in ours for other in cells if _is_other(own, other)]
    return sorted(found, key=lambda pair: -(pair[0].target or 0.0))


def _is_other(ours: Cell, theirs: Cell) -> bool:
    return theirs.method != "ecospa" and theirs.target in (None, ours.target)


def reading(effect: Interval) -> str:
    """Return what a difference in perplexity says, in words."""
    if effect.n < SEEDS_NEEDED:
        return f"too few seeds (n={effect.n})"
    if effect.low <= 0 <= effect.high:
        return f"no difference shown (n={effect.n})"
    return "EcoSpa better" if effect.high < 0 else "EcoSpa worse"


def _row(ours: Cell, theirs: Cell, effect: Interval) -> dict[str, str]:
    return {
        "Blocks kept": share(ours.target),
        "EcoSpa against": label(theirs.method),
        "Difference in perplexity": difference(effect),
        "Reading": reading(effect),
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
    caption="Perplexity of EcoSpa minus that of the other method, paired by seed, with its 95% interval; below zero "
    "EcoSpa is better. An interval that contains zero shows no difference.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    notes=notes,
    place=3,
)
