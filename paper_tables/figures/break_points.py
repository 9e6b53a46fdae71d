"""Perplexity against the width that one part keeps, with its break point: kinds of pairs, then depths."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from paper_tables.analysis.formats import share
from paper_tables.analysis.width_sensitivity import DEPTHS, KINDS, PARTS, STATES, Part, parts
from paper_tables.drawing.style import INK, SERIES, End, label_ends, panels
from paper_tables.item import Plot
from results import RunRecord

GROUPS = {"kind of pair": KINDS, "depth": DEPTHS}
_HIGHEST = 1.6
"""Times the dense model's perplexity: what lies above is broken, however far."""


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel per group and state, or None without a curve."""
    found = parts(records)
    wanted = [
        (group, state, names)
        for group, members in GROUPS.items()
        if (names := [name for name in members if name in found])
        for state in STATES
    ]
    if not wanted:
        return None
    margin = next(iter(found.values())).cell.records[0].payload.get("margin", 0.0)
    figure, axes = panels(len(wanted), height=2.3, columns=2, labels=1.3)
    drawn: list[list[End]] = []
    for panel, (group, state, names) in zip(axes, wanted, strict=True):
        drawn.append(
            [_draw(panel, name, found[name], state, shade) for name, shade in zip(names, SERIES, strict=False)]
        )
        panel.axhline(1 + margin, color=INK, linewidth=0.9, linestyle="--")
        panel.set_xlim(104, 4)  # the more is cut, the further to the right
        panel.xaxis.set_major_locator(MultipleLocator(20))
        panel.set_title(f"{group}, {STATES[state]}")
        panel.set_xlabel("width kept (%)")
    top = min(_HIGHEST, max(panel.get_ylim()[1] for panel in axes))
    for place, (panel, ends) in enumerate(zip(axes, drawn, strict=True)):
        panel.set_ylim(top=top)
        if place % 2:
            label_ends(panel, ends)
        else:
            panel.set_ylabel("perplexity / dense model's")
    return figure


def _draw(panel: Axes, name: str, part: Part, state: str, shade: str) -> End:
    widths = sorted(part.curves[state], reverse=True)
    inside = [width for width in widths if part.curves[state][width].mean <= _HIGHEST]
    drawn = widths[: len(inside) + 1]  # the line leaves the panel rather than ending inside it
    means = [part.curves[state][width].mean for width in drawn]
    bars = [found.half_width if (found := part.curves[state][width]).n > 1 else 0.0 for width in drawn]
    x = [100 * width for width in drawn]
    panel.errorbar(x, means, bars, fmt="o-", color=shade, markersize=3.5, capsize=2, elinewidth=0.8)
    point = part.breaks.get(state)
    if point is not None:
        panel.axvline(100 * point.mean, ymax=0.08, color=shade, linewidth=2.2)
    return x[-1], min(means[-1], _HIGHEST), PARTS.get(name, name), shade


ITEM = Plot(
    name="break_points",
    title="Where each part breaks",
    caption="Mean over seeds with the 95% interval; dashed: the margin, thick ticks: the width at which a part passes "
    f"it. Curves that rise above {share(_HIGHEST)} of the dense model's perplexity leave the panel.",
    experiments=("sparsity_limits",),
    build=build,
    place=6,
)
