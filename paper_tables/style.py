"""One look for all figures: colours that colour-blind readers tell apart, labels at the lines instead of legends.

Ink, grid and paper are exact colours that the report replaces by its own, so that one drawing serves light and dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

INK, GRID, PAPER = "#1b1f24", "#d5dae0", "#ffffff"
WIDTH = 5.8  # inches

End = tuple[float, float, str, str]
"""Where a line ends, x and y in data, its label and its colour."""

_LEFT, _TOP, _BOTTOM, _LABELS = 0.68, 0.32, 0.5, 1.72  # inches around a panel

# Okabe and Ito's palette without yellow and black, which vanish on white and on dark paper.
_METHODS = {
    "ecospa": "#0072b2",
    "ecospa_own_pace": "#56b4e9",
    "uncoupled": "#d55e00",
    "uncoupled_importance": "#e69f00",
    "random_pairs": "#009e73",
    "magnitude": "#cc79a7",
    "dense": INK,
    "dense_twice_steps": "#6b3fa0",
    "small_dense": "#7d8590",
    "ecospa_at_start": "#882255",
    "ecospa_at_end": "#44aa99",
    # what removes structures
    "surgeon": "#6f3fa0",
    "llm_pruner": "#b5485d",
    "llm_pruner_vector": "#d98b98",
    "flap": "#1b7f5c",
    "wanda_sp": "#66b28f",
    "movement": "#8a6d3b",
    "svite": "#3f7f8f",
    "slicegpt": "#a0522d",
    "shortgpt": "#c9a24b",
    "low_rank": "#5a6fc0",
    "torch_pruning": "#4d4d4d",
    # what masks entries
    "sparsegpt": "#004c7f",
    "sparsegpt_2_4": "#004c7f",
    "wanda": "#117733",
    "wanda_2_4": "#117733",
    "magnitude_one_shot": "#cc79a7",
    "magnitude_global": "#aa4499",
    "magnitude_global_one_shot": "#aa4499",
    "magnitude_2_4": "#cc79a7",
}
_MASKS = ("magnitude", "sparsegpt", "wanda", "uncoupled")
_NEWCOMERS = ("#8a6d3b", "#6f62c4", "#b5485d", "#3f7f8f")
_MARKERS = {"ecospa": "o", "ecospa_own_pace": "D", "uncoupled": "s", "uncoupled_importance": "^"}
_MORE_MARKERS = {
    **{"random_pairs": "v", "magnitude": "P", "dense": "*", "dense_twice_steps": "2", "small_dense": "X"},
    **{"ecospa_at_start": "<", "ecospa_at_end": ">"},
}
_STRUCTURED_MARKERS = {
    **{"surgeon": "p", "llm_pruner": ">", "llm_pruner_vector": "<", "flap": "8", "wanda_sp": "H", "slicegpt": "d"},
    **{"shortgpt": "_", "low_rank": "|", "torch_pruning": "x", "movement": "4", "svite": "3"},
}
SERIES = ("#0072b2", "#d55e00", "#009e73")

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


def color(method: str) -> str:
    """Return the colour of a method; newcomers get one of a few spare ones, always the same for a name."""
    return _METHODS.get(method) or _NEWCOMERS[sum(method.encode()) % len(_NEWCOMERS)]


def line_style(method: str) -> str:
    """Return the line style of a method: models that do not shrink are dashed, masks that save nothing are dotted."""
    if method in ("dense", "dense_twice_steps", "small_dense"):
        return "--"
    return ":" if method not in ("wanda_sp", "uncoupled", "magnitude") and masks_entries(method) else "-"


def masks_entries(method: str) -> bool:
    """Return whether a method leaves a model of the whole size with zeros in it."""
    return method.startswith(_MASKS) and method not in ("uncoupled_importance", "wanda_sp")


def marker(method: str) -> str:
    """Return the marker of a method, so that colour is not the only difference."""
    if method.endswith("_2_4"):
        return "1"
    return {**_MARKERS, **_MORE_MARKERS, **_STRUCTURED_MARKERS}.get(method, "h")


def panels(count: int, height: float = 2.7, columns: int = 1, labels: float = _LABELS) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels of `height` inches; `labels` inches right of each row stay free."""
    rows = -(-count // columns)
    gap = _TOP + _BOTTOM + 0.1
    total = rows * height + (rows - 1) * gap + _TOP + _BOTTOM + 0.05
    figure = Figure(figsize=(WIDTH, total))
    width = (WIDTH - columns * _LEFT - labels) / columns
    axes = []
    for index in range(count):
        row, column = divmod(index, columns)
        left = _LEFT + column * (width + _LEFT)
        bottom = total - _TOP - height - row * (height + gap)
        axes.append(figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total)))
    return figure, axes


def logarithmic(axes: Axes, ticks: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Make the y axis logarithmic, with ticks at these multiples of every decade in plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=tuple(ticks)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def label_ends(axes: Axes, ends: Sequence[End], emphasis: str = "EcoSpa") -> None:
    """Write (x, y, text, colour) labels right of the panel, moved apart where lines end close together.

    Call it when everything is drawn and the limits are set. The text is ink, for contrast; a dotted line in the colour
    leads to it.
    """
    size = 8.5
    axes.autoscale_view()  # lines that were added are not in the limits yet
    heights = [float(axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1]) for x, y, _, _ in ends]
    inches = axes.get_position().height * axes.get_figure(root=True).get_size_inches()[1]  # type: ignore[union-attr]
    for (x, y, text, shade), height in zip(ends, spread(heights, size * 1.3 / (72 * inches)), strict=True):
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


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Return positions at least `gap` apart, in the same order, as close to the given ones as possible.

    Neighbours that are too close merge into a block around their mean (pool adjacent violators).
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
    return moved
