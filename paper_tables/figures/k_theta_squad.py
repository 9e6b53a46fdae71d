"""F1 on SQuAD over K and theta: is EcoSpa sensitive to its own two numbers?"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.analysis.fine_tuning_grid import SQUAD
from paper_tables.drawing.fine_tuning_map import map_notes, map_of
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the map, or None without a cell of it."""
    return map_of(records, SQUAD)


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the seeds behind a cell, and what the other methods reach."""
    return map_notes(records, SQUAD)


ITEM = Plot(
    name="k_theta_squad",
    title="F1 on SQuAD over K and theta",
    caption="EcoSpa at its own pace, mean over seeds ± half the width of the 95% interval. K: share of the pairs that "
    "an event may cut (downwards); theta: share of a pair's scores that it keeps. Below stand the distance to the "
    "dense model, paired by seed; what it took, because who goes down slowly trains a larger model; and the size at "
    "the end where not all are equally large.",
    experiments=("bert_squad",),
    build=build,
    notes=notes,
    place=12,
)
