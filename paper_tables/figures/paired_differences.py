"""EcoSpa minus every other method, paired by seed, with intervals: the table of controls at one glance."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.formats import decimals, share
from paper_tables.analysis.intervals import Interval, paired_difference
from paper_tables.drawing.forest import ROW, Row, forest, limits
from paper_tables.drawing.style import INK, panels, seeds
from paper_tables.item import Plot
from paper_tables.tables.controls import pairs
from results import RunRecord

METRICS = {"eval_loss": (1000.0, "0.001 nats per token"), "perplexity": (1.0, "perplexity per token")}
"""Metric -> factor and unit; the first one that all pairs have is drawn."""


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None if EcoSpa shares a seed with no other method."""
    found = [(ours, theirs) for ours, theirs, *_ in pairs(records)]
    metric = next((name for name in METRICS if found and all(_row(*pair, name) for pair in found)), None)
    if metric is None:
        return None
    by_target: dict[float | None, list[Row]] = {}
    for ours, theirs in found:
        by_target.setdefault(ours.target, []).extend(_row(ours, theirs, metric))
    everything = [row.interval for rows in by_target.values() for row in rows]
    span, most = limits(everything, zero=True), max(map(len, by_target.values()))
    figure, axes = panels(len(by_target), height=0.3 + ROW * most, labels=1.75, left=2.0)
    for panel, (target, rows) in zip(axes, by_target.items(), strict=True):
        panel.axvline(0, color=INK, linewidth=1.0)
        forest(panel, rows, span, header="below 0: EcoSpa better", number="{:+.3g}")
        panel.set_title(f"{share(target)} of the blocks kept")
    axes[-1].set_xlabel(f"EcoSpa minus other ({METRICS[metric][1]}), {seeds(everything)}")
    return figure


def _row(ours: Cell, theirs: Cell, metric: str) -> list[Row]:
    """Return the row of one pair of cells, hollow where the interval holds zero; none without a shared seed."""
    effect = paired_difference(ours.values(metric), theirs.values(metric))
    if effect is None:
        return []
    times = METRICS[metric][0]
    effect = Interval(times * effect.mean, times * effect.half_width, effect.n)
    return [Row(theirs.method, effect, _told(effect), hollow=effect.low <= 0 <= effect.high)]


def _told(effect: Interval) -> str:
    """Return a difference to the digits that its interval allows, one decimal at most."""
    if effect.n < 2:
        return f"{effect.mean:+.3g}"
    places = min(1, decimals(effect.half_width, 2))
    return f"{effect.mean:+.{places}f} [{effect.low:+.{places}f}, {effect.high:+.{places}f}]"


ITEM = Plot(
    name="paired_differences",
    title="EcoSpa against each other method",
    caption="Difference in loss paired by seed, with its 95% interval, also in numbers on the right. Hollow: the "
    "interval holds zero. An arrow with a number ends an interval that leaves the axis.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    place=1,
)
