"""Perplexity of a trained LLaMA against the size that it is cut to: one panel per model and procedure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.cells import Cell, label, rank
from paper_tables.finetuned import Protocol, kept_share, protocols
from paper_tables.item import Plot
from paper_tables.style import End, color, label_ends, line_style, logarithmic, marker, panels
from results import RunRecord

_WIDE, _NARROW = (1.0, 2.0, 5.0), (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None if no record has a perplexity and a size."""
    found = [(own, lines) for own in protocols(records) if (lines := _lines(own))]
    if not found:
        return None
    figure, axes = panels(len(found), height=3.4, labels=1.9)
    for panel, (own, lines) in zip(axes, found, strict=True):
        right = min(size for points in lines.values() for size, _, _ in points)
        ends = [_draw(panel, method, lines[method], right) for method in sorted(lines, key=rank)]
        scores = [score for points in lines.values() for _, score, _ in points]
        logarithmic(panel, _WIDE if max(scores) > 8 * min(scores) else _NARROW)
        panel.margins(x=0.06)
        panel.invert_xaxis()
        panel.set_title(f"{own.model}, {own.procedure}")
        panel.set_xlabel("block parameters kept (%)")
        panel.set_ylabel("perplexity (log)")
        label_ends(panel, ends)
    return figure


def _lines(own: Protocol) -> dict[str, list[tuple[float, float, float]]]:
    """Return (size in percent, mean, half width) of every method, the largest size first."""
    comparison = own.comparison
    lines: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for cell in sorted(comparison.cells, key=lambda cell: -(cell.target or 1.0)):
        size, score = _size(cell, kept_share(cell, comparison)), cell.interval("perplexity")
        if size is not None and score is not None:
            width = min(score.half_width, 0.9 * score.mean) if score.n > 1 else 0.0
            lines[cell.method].append((100 * size, score.mean, width))
    return dict(lines)


def _size(cell: Cell, measured: float | None) -> float | None:
    return cell.target if measured is None else measured


def _draw(panel: Axes, method: str, points: Sequence[tuple[float, float, float]], right: float) -> End:
    """Draw one method, the whole model as a level line up to `right`; return where it ends, its label and colour."""
    sizes, means, widths = zip(*points, strict=True)
    if method == "dense":
        panel.axhline(means[0], color=color(method), linestyle="--", linewidth=1.0)
    panel.errorbar(
        *(sizes, means, widths),
        fmt=marker(method) + (line_style(method) if len(points) > 1 else ""),
        color=color(method),
        linewidth=2.2 if method == "ecospa" else 1.1,
        markersize=6,
        capsize=2,
        elinewidth=0.8,
    )
    return right if method == "dense" else sizes[-1], means[-1], label(method), color(method)


ITEM = Plot(
    name="llama_finetuning",
    title="A trained LLaMA, cut at once or with fine-tuning",
    caption="Mean over seeds with the 95% interval; logarithmic, each panel with its own scale: models and procedures "
    "do not compare. Dashed: the whole model, after as many steps. Dotted: masks, whose zeros are stored.",
    experiments=("llama_finetuning",),
    build=build,
    place=8,
)
