"""EcoSpa minus every other method, paired by seed, with intervals: the table of controls at one glance."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.analysis.formats import share
from paper_tables.analysis.intervals import Interval
from paper_tables.drawing.style import INK, color, marker, panels
from paper_tables.item import Plot
from paper_tables.methods import label
from paper_tables.tables.controls import pairs, reading
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None if EcoSpa shares a seed with no other method."""
    found = pairs(records)
    if not found:
        return None
    targets = sorted({ours.target for ours, _, _ in found if ours.target is not None}, reverse=True)
    most = max(sum(ours.target == target for ours, _, _ in found) for target in targets)
    figure, axes = panels(len(targets), height=0.35 + 0.26 * most, labels=1.85, left=1.95)
    reach = [end for _, _, effect in found for end in _ends(effect)]
    margin = 0.06 * (max(*reach, 0.0) - min(*reach, 0.0)) or 1.0
    for panel, target in zip(axes, targets, strict=True):
        rows = [(theirs, effect) for ours, theirs, effect in found if ours.target == target][::-1]
        panel.axvline(0, color=INK, linewidth=1.0)
        for place, (theirs, effect) in enumerate(rows):
            panel.errorbar(
                *([effect.mean], [place]),
                xerr=[effect.mean - _ends(effect)[0]],
                fmt=marker(theirs.method),
                color=color(theirs.method),
                markersize=6,
                capsize=3,
            )
            panel.annotate(
                reading(effect), (1.03, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5
            )
        panel.set_xlim(min(*reach, 0.0) - margin, max(*reach, 0.0) + margin)
        panel.set_yticks(range(len(rows)), [label(theirs.method) for theirs, _ in rows])
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.set_ylim(-0.6, len(rows) - 0.4)
        panel.set_title(f"{share(target)} of the block parameters kept")
    axes[-1].set_xlabel("perplexity difference (left: EcoSpa better)")
    return figure


def _ends(effect: Interval) -> tuple[float, float]:
    """Return the ends of the bar: a single seed has no interval to draw."""
    return (effect.low, effect.high) if effect.n > 1 else (effect.mean, effect.mean)


ITEM = Plot(
    name="paired_differences",
    title="EcoSpa against each other method",
    caption="Difference in perplexity paired by seed, with its 95% interval.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    place=1,
)
