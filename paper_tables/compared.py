"""Draws what `compare` found for one model: quality against parameters, against arithmetic, against measured time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.cells import Cell, by_model, compare, label, rank
from paper_tables.style import End, color, label_ends, line_style, logarithmic, marker, panels
from results import RunRecord

SCORE = "perplexity"
COSTS = (
    ("block_share", "non-zero block parameters / dense"),
    ("forward_flops_ratio", "forward FLOPs / dense"),
    ("latency_ratio", "measured latency of one sequence / dense"),
)

_FAR = 20  # times what nine of ten points stay below
_WIDE, _NARROW = (1.0, 2.0, 5.0), (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)


def pareto(records: Sequence[RunRecord], model: str) -> Figure | None:
    """Return one panel per cost, or None if there is no record of this model."""
    lines: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in compare(by_model(records).get(model, [])).cells:
        if cell.interval(SCORE) is not None:
            lines[cell.method].append(cell)
    if not lines:
        return None
    low, high = _range([score.mean for line in lines.values() for cell in line if (score := cell.interval(SCORE))])
    figure, found = panels(len(COSTS), height=4.2, labels=1.9)
    for panel, (metric, text) in zip(found, COSTS, strict=True):
        ends = [_line(panel, method, lines[method], metric) for method in sorted(lines, key=rank)]
        logarithmic(panel, _WIDE if high > 8 * low else _NARROW)
        panel.margins(x=0.06)
        panel.set_ylim(low, high)
        panel.set_xlabel(text)
        panel.set_ylabel("perplexity (log)")
        label_ends(panel, [_inside(end, high) for end in ends])
    return figure


def _range(scores: Sequence[float]) -> tuple[float, float]:
    """Return the limits of the axis; a few points that are far worse than the rest would hide what lies below them."""
    ordered = sorted(scores)
    most = ordered[int(0.9 * (len(ordered) - 1))]
    crowded = ordered[-1] > _FAR * most
    high = max((1.5 * most if crowded else ordered[-1]) * 1.04, ordered[0] * 1.1)
    # where points crowd at the bottom, their labels need room there
    return ordered[0] / (high / ordered[0]) ** (0.25 if crowded else 0.05), high


def _inside(end: End, high: float) -> End:
    """Return where a line's label points: to the upper edge, and saying so, if the line ends above it."""
    x, score, text, shade = end
    return end if score <= high else (x, high, f"{text} (above)", shade)


def _line(panel: Axes, method: str, cells: Sequence[Cell], metric: str) -> End:
    """Draw one method from its largest size to its smallest; return where the line ends, its label and colour."""
    points = []
    for cell in sorted(cells, key=lambda cell: -(cell.target or 0.0)):
        cost, score = cell.interval(metric), cell.interval(SCORE)
        assert cost is not None and score is not None  # every finished record has both
        points.append((cost.mean, score.mean, score.half_width if score.n > 1 else 0.0))
    costs, scores, widths = zip(*points, strict=True)
    panel.errorbar(
        *(costs, scores, [min(width, 0.9 * score) for width, score in zip(widths, scores, strict=True)]),
        fmt=marker(method) + (line_style(method) if len(points) > 1 else ""),
        color=color(method),
        linewidth=2.2 if method == "ecospa" else 1.1,
        markersize=6,
        capsize=2,
        elinewidth=0.8,
    )
    return costs[-1], scores[-1], label(method), color(method)
