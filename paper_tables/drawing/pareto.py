"""A score against non-zero block parameters, method by method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.figure import Figure

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.intervals import Interval
from paper_tables.drawing.style import color, key, line_style, marker, panels
from paper_tables.methods import label, rank

Series = list[tuple[float, Interval]]


def against_size(cells: Sequence[Cell], metric: str, text: str, times: float = 1.0) -> Figure | None:
    """Return a figure of `metric` `times` a factor, called `text`, against non-zero block parameters; None without."""
    series: defaultdict[str, Series] = defaultdict(list)
    for cell in cells:
        size, score = cell.interval("block_parameters_nonzero"), cell.interval(metric)
        if size is not None and score is not None:
            series[cell.method].append((size.mean, score))
    if not series:
        return None
    figure, (panel,) = panels(1, height=4.0, labels=1.95, left=0.82)
    largest = max(size for line in series.values() for size, _ in line)
    scale, unit = (1e6, "millions") if largest >= 1e6 else (1e3, "thousands")
    methods = sorted(series, key=rank)
    for place, method in enumerate(methods):
        points = sorted(series[method], key=lambda point: point[0])
        # Side by side, or the intervals of methods of one size would hide one another.
        aside = (place - (len(methods) - 1) / 2) * 0.006 * largest / scale
        sizes, means = [size / scale + aside for size, _ in points], [times * score.mean for _, score in points]
        widths = [times * score.half_width if score.n > 1 else 0.0 for _, score in points]
        panel.errorbar(
            *(sizes, means, widths),
            marker=marker(method),
            linestyle=line_style(method) if len(points) > 1 else "none",
            color=color(method),
            linewidth=2.0 if method == "ecospa" else 1.2,
            markersize=7,
            capsize=3,
            elinewidth=1.0,
        )
    panel.margins(x=0.08)
    panel.set_xlabel(f"non-zero block parameters ({unit})")
    panel.set_ylabel(text)
    by_score = sorted(methods, key=lambda method: -max(series[method], key=lambda point: point[0])[1].mean)
    key(panel, [(method, label(method)) for method in by_score])
    return figure
