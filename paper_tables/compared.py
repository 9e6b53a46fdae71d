"""Draws what `compare` found for one model: quality against parameters, against arithmetic, against measured time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.cells import Cell, by_model, compare, label, rank
from paper_tables.style import color, label_ends, line_style, logarithmic, marker, panels
from results import RunRecord

COSTS = (
    ("block_share", "non-zero block parameters / dense"),
    ("forward_flops_ratio", "forward FLOPs / dense"),
    ("latency_ratio", "measured latency of one sequence / dense"),
)


def pareto(records: Sequence[RunRecord], model: str) -> Figure | None:
    """Return one panel per cost, or None if there is no record of this model."""
    lines: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in compare(by_model(records).get(model, [])).cells:
        if cell.interval("perplexity") is not None:
            lines[cell.method].append(cell)
    if not lines:
        return None
    figure, found = panels(len(COSTS), height=3.9, labels=1.85)
    for panel, (metric, text) in zip(found, COSTS, strict=True):
        ends = [_line(panel, method, lines[method], metric) for method in sorted(lines, key=rank)]
        logarithmic(panel)
        panel.margins(x=0.06, y=0.06)
        panel.set_xlabel(text)
        panel.set_ylabel("perplexity (log)")
        label_ends(panel, ends)
    return figure


def _line(panel: Axes, method: str, cells: Sequence[Cell], metric: str) -> tuple[float, float, str, str]:
    """Draw one method from its largest size to its smallest; return where the line ends, its label and colour."""
    points = []
    for cell in sorted(cells, key=lambda cell: -(cell.target or 0.0)):
        cost, score = cell.interval(metric), cell.interval("perplexity")
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
