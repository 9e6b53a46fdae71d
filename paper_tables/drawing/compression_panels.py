"""Draws what `compare` found for one model: quality against parameters, against FLOPs, against measured time.

Twenty methods in one panel cannot be told apart, so every kind of method has a row of panels, with EcoSpa and the dense
model in each; all panels have one scale of perplexity.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from paper_tables.analysis.cells import Cell, by_model, compare
from paper_tables.drawing.style import clipped, color, key, line_style, logarithmic, marker, panels, seeds
from paper_tables.methods import CONTROL, label, method, rank
from results import RunRecord

SCORE = "perplexity"
CAPTION = (
    "A row for every kind of method, EcoSpa and the dense model in each, all on one scale; mean over "
    "calibration seeds with the 95% interval, lower left is better. Size: non-zero block parameters; FLOPs: of a "
    "forward pass; latency: measured, of one sequence. A line joins the sizes of a method; a key is ordered by "
    "perplexity at the smallest. Dotted: masks, whose zeros are stored and multiplied. The worst points may lie above "
    "the panel."
)
"""Caption of the figure of every model."""
COSTS = (
    ("block_share", "size / dense"),
    ("forward_flops_ratio", "FLOPs / dense"),
    ("latency_ratio", "latency / dense"),
)
"""Metric, and its name below a column: non-zero block parameters, forward FLOPs, measured latency of one sequence."""
OURS = "ecospa"

_GAP = 0.2  # inches between the panels of a row
_FAR = 20  # times what nine of ten points stay below
_WIDE, _NARROW = (1.0, 2.0, 5.0), (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
_NARROWER = tuple(n / 2 for n in range(2, 20))

Lines = Mapping[str, Sequence[Cell]]


def pareto(records: Sequence[RunRecord], model: str) -> Figure | None:
    """Return one row per kind of method and one column per cost, or None if there is no record of this model."""
    lines: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in compare(by_model(records).get(model, [])).cells:
        if cell.interval(SCORE) is not None:
            lines[cell.method].append(cell)
    if not lines:
        return None
    kinds = _kinds(lines)
    scores = [score for line in lines.values() for cell in line if (score := cell.interval(SCORE))]
    low, high = _range([score.mean for score in scores])
    figure, rows = panels(len(kinds), height=1.75, labels=2.0)
    grid = [_split(figure, row) for row in rows]
    for row, (kind, shown) in zip(grid, kinds.items(), strict=True):
        last: dict[str, float] = {}
        for panel, (metric, _) in zip(row, COSTS, strict=True):
            last = {name: _line(panel, name, lines[name], metric) for name in shown}
            logarithmic(panel, _WIDE if high > 8 * low else _NARROW if high > 2 * low else _NARROWER)
            panel.set_ylim(low, high)
        for panel in row[1:]:
            panel.yaxis.set_major_formatter(NullFormatter())
        row[0].set_title(kind)
        row[0].set_ylabel("perplexity (log)")
        ordered = sorted(last, key=lambda name: -last[name])
        key(row[-1], [(name, label(name) + " (above)" * (last[name] > high)) for name in ordered])
    for column, (_, text) in zip(zip(*grid, strict=True), COSTS, strict=True):
        _align(column)
        column[-1].set_xlabel(text, fontsize=8.5)
    corner = grid[0][-1]
    corner.text(1.12, 1.09, seeds(scores), transform=corner.transAxes, fontsize=7.5)
    return figure


def _align(column: Sequence[Axes]) -> None:
    """Give the panels of a cost one scale, so that one kind of method can be held against another."""
    spans = [panel.dataLim.intervalx for panel in column]
    low, high = min(float(span[0]) for span in spans), max(float(span[1]) for span in spans)
    room = 0.09 * (high - low) or 0.1
    for panel in column:
        panel.set_xlim(low - room, high + room)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 5, 10], min_n_ticks=2))
        panel.tick_params(axis="x", labelsize=8)


def _kinds(lines: Lines) -> dict[str, list[str]]:
    """Return the names in every row by its title, EcoSpa and the dense model in all of them."""
    common = [name for name in lines if name == OURS or method(name).group == CONTROL]
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(lines.keys() - set(common), key=rank):
        groups[method(name).group].append(name)
    return {kind: [*common, *names] for kind, names in groups.items()} or {"EcoSpa": common}


def _split(figure: Figure, row: Axes) -> list[Axes]:
    """Return one panel per cost in the place of one."""
    place, inches = row.get_position(), figure.get_size_inches()[0]
    row.remove()
    gap = _GAP / inches
    width = (place.width - gap * (len(COSTS) - 1)) / len(COSTS)
    return [figure.add_axes((place.x0 + n * (width + gap), place.y0, width, place.height)) for n in range(len(COSTS))]


def _range(scores: Sequence[float]) -> tuple[float, float]:
    """Return the limits of the axis; a few points that are far worse than the rest would hide what lies below them."""
    ordered = sorted(scores)
    most = ordered[int(0.9 * (len(ordered) - 1))]
    crowded = ordered[-1] > _FAR * most
    high = max((1.1 * most if crowded else ordered[-1]) * 1.04, ordered[0] * 1.1)
    return ordered[0] / (high / ordered[0]) ** 0.05, high


def _line(panel: Axes, name: str, cells: Sequence[Cell], metric: str) -> float:
    """Draw one method from its largest size to its smallest; return the score of the smallest."""
    points = []
    for cell in sorted(cells, key=lambda cell: -(cell.target or 0.0)):
        cost, score = cell.interval(metric), cell.interval(SCORE)
        assert cost is not None and score is not None  # every finished record has both
        points.append((cost.mean, score.mean, score.half_width if score.n > 1 else 0.0))
    costs, scores, widths = zip(*points, strict=True)
    ours = name == OURS
    # Intervals are pale: they would hide one another's points.
    panel.errorbar(
        *(costs, scores, clipped(scores, widths)),
        fmt="none",
        ecolor=color(name),
        alpha=0.5,
        capsize=2,
        elinewidth=0.9,
        zorder=1.5,
    )
    panel.plot(
        *(costs, scores),
        marker=marker(name),
        linestyle=line_style(name) if len(points) > 1 else "none",
        color=color(name),
        linewidth=2.2 if ours else 1.1,
        markersize=5.5,
        zorder=4 if name == "dense" else 3 if ours else 2,
    )
    return float(scores[-1])
