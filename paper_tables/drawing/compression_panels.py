"""Draws what `compare` found for one model: quality against parameters, against FLOPs, against measured time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.cells import Cell, by_model, compare
from paper_tables.drawing.style import clipped, color, key, line_style, logarithmic, marker, panels
from paper_tables.methods import label, rank
from results import RunRecord

SCORE = "perplexity"
COSTS = (
    ("block_share", "non-zero block parameters / dense"),
    ("forward_flops_ratio", "forward FLOPs / dense"),
    ("latency_ratio", "measured latency of one sequence / dense"),
)

_FAR = 20  # times what nine of ten points stay below
_WIDE, _NARROW = (1.0, 2.0, 5.0), (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
_NARROWER = tuple(n / 2 for n in range(2, 20))


def pareto(records: Sequence[RunRecord], model: str) -> Figure | None:
    """Return one panel per cost, or None if there is no record of this model."""
    lines: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in compare(by_model(records).get(model, [])).cells:
        if cell.interval(SCORE) is not None:
            lines[cell.method].append(cell)
    if not lines:
        return None
    low, high = _range([score.mean for line in lines.values() for cell in line if (score := cell.interval(SCORE))])
    figure, found = panels(len(COSTS), height=4.2, labels=2.05)
    for panel, (metric, text) in zip(found, COSTS, strict=True):
        last = {method: _line(panel, method, lines[method], metric) for method in sorted(lines, key=rank)}
        logarithmic(panel, _WIDE if high > 8 * low else _NARROW if high > 2 * low else _NARROWER)
        panel.margins(x=0.06)
        panel.set_ylim(low, high)
        panel.set_xlabel(text)
        panel.set_ylabel("perplexity (log)")
        ordered = sorted(last, key=lambda method: -last[method])
        key(panel, [(method, label(method) + " (above)" * (last[method] > high)) for method in ordered])
    return figure


def _range(scores: Sequence[float]) -> tuple[float, float]:
    """Return the limits of the axis; a few points that are far worse than the rest would hide what lies below them."""
    ordered = sorted(scores)
    most = ordered[int(0.9 * (len(ordered) - 1))]
    crowded = ordered[-1] > _FAR * most
    high = max((1.1 * most if crowded else ordered[-1]) * 1.04, ordered[0] * 1.1)
    return ordered[0] / (high / ordered[0]) ** 0.05, high


def _line(panel: Axes, method: str, cells: Sequence[Cell], metric: str) -> float:
    """Draw one method from its largest size to its smallest; return the score of the smallest."""
    points = []
    for cell in sorted(cells, key=lambda cell: -(cell.target or 0.0)):
        cost, score = cell.interval(metric), cell.interval(SCORE)
        assert cost is not None and score is not None  # every finished record has both
        points.append((cost.mean, score.mean, score.half_width if score.n > 1 else 0.0))
    costs, scores, widths = zip(*points, strict=True)
    ours = method == "ecospa"
    # Intervals are pale: of twenty methods they would hide one another's points.
    panel.errorbar(
        *(costs, scores, clipped(scores, widths)),
        fmt="none",
        ecolor=color(method),
        alpha=0.35,
        capsize=2,
        elinewidth=0.8,
        zorder=1.5,
    )
    panel.plot(
        *(costs, scores),
        marker=marker(method),
        linestyle=line_style(method) if len(points) > 1 else "none",
        color=color(method),
        linewidth=2.2 if ours else 1.1,
        markersize=6,
        zorder=3 if ours else 2,
    )
    return float(scores[-1])
