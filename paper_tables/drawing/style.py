"""One look for all figures: colours that colour-blind readers tell apart, labels at the lines instead of legends.

Ink, grid and paper are exact colours that the report replaces by its own, so that one drawing serves light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from paper_tables.analysis.intervals import Interval
from paper_tables.methods import CONTROL, k_and_theta, method, removes, spare_place

INK, GRID, PAPER = "#1b1f24", "#d5dae0", "#ffffff"
WIDTH = 5.8  # inches
TALL = 4
"""Panels below one another from which a figure has twice the width and two of them abreast."""

End = tuple[float, float, str, str]
"""End of a line: x and y in data, its label and its colour."""

LEFT, _TOP, _BOTTOM, _LABELS = 0.68, 0.32, 0.5, 1.72  # inches around a panel

BLUE, SKY, RED, ORANGE, GREEN, PINK = "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7"
GREY = "#7d8590"
PALETTE = (INK, GREY, BLUE, SKY, RED, ORANGE, GREEN, PINK)
"""Okabe and Ito's palette without yellow and black, which vanish on white and on dark paper; grey and ink instead."""

SPARE_COLORS, SPARE_MARKERS = ("#8a6d3b", "#6f62c4"), ("o", "s", "^", "v", "D", "P", "X", "p", "h", "*")
"""Looks of unknown methods: brown and violet, which no known method has."""

COLORS = {
    **{"ink": INK, "grey": GREY, "blue": BLUE, "sky": SKY, "red": RED, "orange": ORANGE, "green": GREEN, "pink": PINK},
}
"""Colours by the names that `paper_tables.methods` gives."""
LineStyle = Literal["-", "--", "-.", ":"]
_OF_K = {"10": BLUE, "30": GREEN, "50": RED}
_OF_THETA: dict[str, tuple[str, LineStyle]] = {"70": ("v", "--"), "90": ("s", "-."), "95": ("o", "-")}
SERIES = (BLUE, RED, GREEN)

_LEADER: Any = {
    **{"arrowstyle": "-", "linestyle": (0, (1, 1.2)), "linewidth": 1.2},
    **{"shrinkA": 3, "shrinkB": 3, "relpos": (0, 0.5)},
}
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.dpi": 150,
    "svg.fonttype": "path",
}


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Apply the style to what is drawn and saved inside; ids in an SVG are made from `name`, the same every time."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user has set for other plots
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        yield


def look(name: str) -> tuple[str, str]:
    """Return colour and marker of a method; an unknown one gets a spare pair, which no other of the records has."""
    if (known := method(name)).color:
        return COLORS[known.color], known.marker
    if (found := k_and_theta(name)) is not None and found[0] in _OF_K and found[1] in _OF_THETA:
        return _OF_K[found[0]], _OF_THETA[found[1]][0]
    marks, colors = divmod(spare_place(name, len(SPARE_COLORS) * len(SPARE_MARKERS)), len(SPARE_COLORS))
    return SPARE_COLORS[colors], SPARE_MARKERS[marks]


def color(name: str) -> str:
    """Return the colour of a method."""
    return look(name)[0]


def marker(name: str) -> str:
    """Return the marker of a method, so that colour is not the only difference."""
    return look(name)[1]


def line_style(name: str) -> LineStyle:
    """Return the line style of a method: dense controls are dashed, masks that save nothing are dotted.

    On a grid over K and theta the style tells theta.
    """
    if (found := k_and_theta(name)) is not None and found[1] in _OF_THETA:
        return _OF_THETA[found[1]][1]
    if method(name).group == CONTROL:
        return "--"
    return ":" if removes(name) == "zeros" else "-"


def panels(
    count: int, height: float = 2.7, columns: int = 1, labels: float = _LABELS, left: float = LEFT
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels of `height` inches; `left` of each and `labels` right of rows stay free.

    More than TALL in one column become two columns, each with labels of its own.
    """
    abreast = 2 if columns == 1 and count > TALL else 1
    rows = -(-count // (columns * abreast))
    gap = _TOP + _BOTTOM + 0.1
    total, whole = rows * height + (rows - 1) * gap + _TOP + _BOTTOM + 0.05, abreast * WIDTH
    figure = Figure(figsize=(whole, total))
    width = (WIDTH - columns * left - labels) / columns
    axes = []
    for index in range(count):
        row, place = divmod(index, columns * abreast)
        group, column = divmod(place, columns)
        start = group * WIDTH + left + column * (width + left)
        bottom = total - _TOP - height - row * (height + gap)
        axes.append(figure.add_axes((start / whole, bottom / total, width / whole, height / total)))
    return figure, axes


def logarithmic(axes: Axes, ticks: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Make the y axis logarithmic, with ticks at these multiples of every decade in plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=tuple(ticks)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def clipped(means: Sequence[float], widths: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return (lower, upper) lengths of bars on a logarithmic axis: down to a tenth of the mean at most, up in full."""
    lower = [min(width, 0.9 * mean) for mean, width in zip(means, widths, strict=True)]
    return lower, list(widths)


def seeds(intervals: Iterable[Interval]) -> str:
    """Return how many seeds are behind means and intervals: "n = 3 seeds, 95% interval"."""
    counts = sorted({interval.n for interval in intervals})
    if counts in ([], [1]):
        return "one seed"
    return f"n = {'–'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds, 95% interval"  # noqa: RUF001


def label_ends(axes: Axes, ends: Sequence[End], emphasis: str = "EcoSpa") -> None:
    """Write (x, y, text, colour) labels right of the panel, moved apart where lines end close together.

    Call it when everything is drawn and the limits are set. The text is ink, for contrast; a dotted line in the colour
    leads to it.
    """
    size = 8.5
    axes.autoscale_view()  # lines that were added are not in the limits yet
    heights = [float(axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1]) for x, y, _, _ in ends]
    inches = axes.get_position().height * axes.get_figure(root=True).get_size_inches()[1]  # type: ignore[union-attr]
    for (x, y, text, shade), height in zip(ends, spread(heights, size * 1.3 / (72 * inches), ceiling=1.0), strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(1.07, height),
            textcoords="axes fraction",
            va="center",
            fontsize=size,
            fontweight="bold" if text == emphasis else "normal",
            annotation_clip=False,
            arrowprops={"color": shade, **_LEADER},
        )


def key(axes: Axes, methods: Sequence[tuple[str, str]], emphasis: str = "ecospa", lines: bool = True) -> None:
    """Write a key right of the panel, (method, text) from above: where lines would cross the leaders of `label_ends`.

    Call it when everything is drawn. Without `lines` it shows markers alone.
    """
    handles = [
        Line2D(
            *([], []),
            color=color(name),
            marker=marker(name),
            linestyle=line_style(name) if lines else "none",
            linewidth=2.0 if name == emphasis else 1.2,
            markersize=6,
            label=text,
        )
        for name, text in methods
    ]
    legend = axes.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        frameon=False,
        fontsize=8.5,
        handlelength=2.2 if lines else 1.2,
        labelspacing=0.3,
    )
    for (name, _), text in zip(methods, legend.get_texts(), strict=True):
        text.set_fontweight("bold" if name == emphasis else "normal")


def spread(positions: Sequence[float], gap: float, ceiling: float = float("inf")) -> list[float]:
    """Return positions at least `gap` apart, in the same order, as close to the given ones as possible.

    Neighbours that are too close merge into a block around their mean (pool adjacent violators). A block that would
    rise above `ceiling`, over which a title stands, moves down, and what it meets there with it.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    blocks: list[list[float]] = []  # [sum of (position - rank * gap), members]
    for place, index in enumerate(order):
        blocks.append([positions[index] - place * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, members = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + members]
    means = [total / members for total, members in blocks for _ in range(int(members))]
    moved = [0.0] * len(positions)
    for place, index in enumerate(order):
        moved[index] = means[place] + place * gap
    for index in reversed(order):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved
