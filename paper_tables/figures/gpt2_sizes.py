"""Perplexity of GPT-2 against all of its parameters: does shrinking beat a model that was small from the start?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from paper_tables.analysis.cells import Cell, by_model, compare
from paper_tables.drawing.style import color, label_ends, line_style, marker, panels
from paper_tables.item import Plot
from paper_tables.methods import label, rank
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return one panel per model, or None if no cell has both numbers."""
    drawn = {name: lines for name, own in by_model(records).items() if (lines := _lines(own))}
    if not drawn:
        return None
    figure, axes = panels(len(drawn), height=3.2, labels=2.0)
    for panel, (name, lines) in zip(axes, drawn.items(), strict=True):
        _draw(panel, lines)
        panel.set_title(name)
        panel.set_ylabel("perplexity")
    axes[-1].set_xlabel("parameters (millions)")
    return figure


def _lines(records: Sequence[RunRecord]) -> dict[str, list[Cell]]:
    lines: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in compare(records).cells:
        if cell.interval("parameters") is not None and cell.interval("perplexity") is not None:
            lines[cell.method].append(cell)
    return dict(lines)


def _draw(panel: Axes, lines: dict[str, list[Cell]]) -> None:
    ends = []
    for method in sorted(lines, key=rank):
        points = []
        for cell in sorted(lines[method], key=lambda cell: -(cell.target or 1.0)):
            size, score = cell.interval("parameters"), cell.interval("perplexity")
            assert size is not None and score is not None  # chosen by _lines
            points.append((size.mean / 1e6, score.mean, score.half_width if score.n > 1 else 0.0))
        sizes, means, widths = zip(*points, strict=True)
        panel.errorbar(
            *(sizes, means, widths),
            fmt=marker(method) + (line_style(method) if len(points) > 1 else ""),
            color=color(method),
            linewidth=2.0 if method == "ecospa" else 1.2,
            markersize=7,
            capsize=3,
            elinewidth=1.0,
        )
        ends.append((sizes[-1], means[-1], label(method), color(method)))
    panel.margins(x=0.08)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    label_ends(panel, ends)


ITEM = Plot(
    name="gpt2_sizes",
    title="GPT-2 from scratch: perplexity against size",
    caption="Mean over seeds with the 95% interval; lower left is better. A line joins the sizes of a method.",
    experiments=("gpt2_pretraining",),
    build=build,
    place=2,
)
