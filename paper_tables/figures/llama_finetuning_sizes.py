"""Perplexity of a trained LLaMA against the size that it is cut to: one panel per model and procedure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.cells import Cell
from paper_tables.analysis.fine_tuning import Protocol, kept_share, protocols
from paper_tables.drawing.style import clipped, color, key, line_style, logarithmic, marker, panels
from paper_tables.item import Plot
from paper_tables.methods import label, rank
from results import RunRecord

_WIDE, _NARROW = (1.0, 2.0, 5.0), (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)

_ROOM = 1.5


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None if no record has a perplexity and a size."""
    found = [(own, lines) for own in protocols(records) if (lines := _lines(own))]
    if not found:
        return None
    figure, axes = panels(len(found), height=3.4, labels=1.9)
    for panel, (own, lines) in zip(axes, found, strict=True):
        for method in sorted(lines, key=rank):
            _draw(panel, method, lines[method])
        scores = [score for points in lines.values() for _, score, _ in points]
        logarithmic(panel, _WIDE if max(scores) > 8 * min(scores) else _NARROW)
        panel.set_ylim(min(scores) / _ROOM, max(scores) * _ROOM)  # an interval of few seeds may be wider than all else
        panel.margins(x=0.06)
        panel.invert_xaxis()
        panel.set_title(f"{own.model}, {own.procedure}")
        panel.set_xlabel("block parameters kept (%)")
        panel.set_ylabel("perplexity (log)")
        key(panel, [(method, label(method)) for method in sorted(lines, key=lambda name: -lines[name][-1][1])])
    return figure


def _lines(own: Protocol) -> dict[str, list[tuple[float, float, float]]]:
    """Return (size in percent, mean, half width) of every method, the largest size first."""
    comparison = own.comparison
    lines: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for cell in sorted(comparison.cells, key=lambda cell: -(cell.target or 1.0)):
        size, score = _size(cell, kept_share(cell, comparison)), cell.interval("perplexity")
        if size is not None and score is not None:
            width = score.half_width if score.n > 1 else 0.0
            lines[cell.method].append((100 * size, score.mean, width))
    return dict(lines)


def _size(cell: Cell, measured: float | None) -> float | None:
    return cell.target if measured is None else measured


def _draw(panel: Axes, method: str, points: Sequence[tuple[float, float, float]]) -> None:
    """Draw one method, a level line where it has one size only."""
    sizes, means, widths = zip(*points, strict=True)
    if method == "dense":
        panel.axhline(means[0], color=color(method), linestyle="--", linewidth=1.0)
    panel.errorbar(
        # Downwards a bar ends above zero, which a logarithmic axis does not have; upwards it is whole.
        *(sizes, means, clipped(means, widths)),
        fmt=marker(method) + (line_style(method) if len(points) > 1 else ""),
        color=color(method),
        linewidth=2.2 if method == "ecospa" else 1.1,
        markersize=6,
        capsize=2,
        elinewidth=0.8,
    )


ITEM = Plot(
    name="llama_finetuning_sizes",
    title="A trained LLaMA, one-shot or with fine-tuning",
    caption="Mean over seeds with the 95% interval; logarithmic, each panel with its own scale, which wide intervals "
    "leave: models and procedures do not compare. Dashed: the dense model, after as many steps. Dotted: masks, whose "
    "zeros are stored.",
    experiments=("llama_finetuning",),
    build=build,
    place=8,
)
