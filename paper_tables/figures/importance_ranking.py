"""Perplexity of every measure that chooses pairs, and under it what each measure left of the three kinds of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paper_tables.analysis.cells import Cell, compare
from paper_tables.analysis.pair_widths import KINDS, whole_widths, widths_left
from paper_tables.drawing.style import INK, SERIES, color, panels
from paper_tables.item import Plot
from paper_tables.methods import label
from paper_tables.tables.importance_metrics import measure
from results import RunRecord

CONTROLS = ("dense", "small_dense")
_MARKERS = ("o", "s", "^")


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure with the measures in the order of their mean, or None without a perplexity of any."""
    comparison = compare(records)
    scored = [cell for cell in comparison.cells if cell.interval("perplexity") is not None]
    rows = sorted((cell for cell in scored if cell.method not in CONTROLS), key=_mean, reverse=True)
    if not rows:
        return None
    whole = whole_widths(comparison.records)
    widths = {cell.method: widths_left(cell, whole) for cell in rows}
    height = 0.27 * len(rows) + 0.3
    figure, axes = panels(2 if any(widths.values()) else 1, height=height, labels=1.55)
    _perplexities(axes[0], rows, [cell for cell in scored if cell.method in CONTROLS])
    if len(axes) > 1:
        _widths(
            axes[1], rows, {name: {kind: found.mean for kind, found in left.items()} for name, left in widths.items()}
        )
    for panel in axes:
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        panel.set_ylim(-0.6, len(rows) - 0.4)
        for place, cell in enumerate(rows):
            panel.annotate(
                measure(cell.method),
                (1.03, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8.5,
                fontweight="bold" if cell.method == "ecospa" else "normal",
            )
    return figure


def _mean(cell: Cell) -> float:
    found = cell.interval("perplexity")
    return 0.0 if found is None else found.mean


def _perplexities(panel: Axes, rows: Sequence[Cell], controls: Sequence[Cell]) -> None:
    for place, cell in enumerate(rows):
        score = cell.interval("perplexity")
        assert score is not None  # chosen by build
        half = score.half_width if score.n > 1 else 0.0
        panel.errorbar([score.mean], [place], xerr=[half], fmt="o", color=_shade(cell.method), markersize=6, capsize=3)
    for cell in controls:
        panel.axvline(_mean(cell), color=color(cell.method), linewidth=1.2, linestyle="--")
        panel.annotate(
            label(cell.method),
            (_mean(cell), 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, -2),
            textcoords="offset points",
            va="top",
            fontsize=7.5,
        )
    panel.margins(x=0.12)
    panel.set_title("perplexity")
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6))


def _widths(panel: Axes, rows: Sequence[Cell], left: Mapping[str, Mapping[str, float]]) -> None:
    for (kind, text), shade, mark in zip(KINDS.items(), SERIES, _MARKERS, strict=True):
        points = [
            (100 * left[cell.method][kind], place) for place, cell in enumerate(rows) if kind in left[cell.method]
        ]
        if points:
            panel.plot(*zip(*points, strict=True), mark, color=shade, markersize=6, label=text)
    panel.set_xlim(0, 104)
    panel.set_title("width left (%)")
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False, fontsize=8, handletextpad=0.2)


def _shade(method: str) -> str:
    return color(method) if method == "ecospa" else INK


ITEM = Plot(
    name="importance_ranking",
    title="Which pairs to cut: measures compared",
    caption="Above: perplexity, mean over seeds with the 95% interval; dashed: the controls. Below: width that is left "
    "at the end, mean over layers and seeds.",
    experiments=("importance_metrics",),
    build=build,
    place=5,
)
