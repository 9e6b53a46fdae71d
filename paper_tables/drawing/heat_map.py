"""Heat maps for all figures that have a surface: one look, numbers in the cells, a hole where nothing was measured.

figure, axes = panels(2, height=2.2, labels=1.0)
norm = shared_norm([first, second])
for panel, values in zip(axes, (first, second)):
    image = heat_map(panel, values, rows=["0.1", "0.3"], columns=["0.8", "0.9", "0.95"], norm=norm)
color_bar(figure, axes, image, "perplexity")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike, NDArray

from paper_tables.drawing.style import INK

# Both keep their order of lightness for colour-blind readers and in print without colours.
ORDERED, CENTRED = "viridis", "PuOr_r"
# Nearly white and nearly black: exactly the paper's and the ink's colours would turn with the page, the cells do not.
ON_DARK, ON_LIGHT = "#fdfdfd", "#16181b"
_FAR = 20.0  # times the median distance from the median: what lies beyond does not rule the scale
_MOST_TEXTS = 150


def shared_norm(surfaces: Sequence[ArrayLike], centre: float | None = None, logarithmic: bool = False) -> Normalize:
    """Return one scale of shades for all `surfaces`, so that a shade means the same in every panel.

    A few values far away from all others do not rule it: they get its last shade, and their cells still say how much.

    Args:
        surfaces: values of every panel; NaN where nothing was measured.
        centre: the neutral value (0 of a difference, 1 of a ratio); shades then run to both sides of it.
        logarithmic: shades by orders of magnitude; values must be positive, and `centre` must not be given.

    Raises:
        ValueError: both `centre` and `logarithmic`, or a logarithm of what is not positive.
    """
    found = np.concatenate([np.asarray(surface, dtype=np.float64).ravel() for surface in surfaces] or [np.zeros(0)])
    found = found[np.isfinite(found)]
    if logarithmic:
        if centre is not None or (found <= 0).any():
            reason = f"centre is {centre}" if centre is not None else f"the smallest value is {found.min():g}"
            raise ValueError(f"logarithmic shades need positive values and no centre; {reason}; drop `logarithmic`")
        return LogNorm(float(found.min()), float(found.max()) * (1 + 1e-9)) if len(found) else LogNorm(1.0, 10.0)
    low, high = _limits(found)
    if centre is None:
        return Normalize(low, high)
    reach = max(abs(low - centre), abs(high - centre)) or 1.0
    return TwoSlopeNorm(centre, centre - reach, centre + reach)


def heat_map(
    panel: Axes,
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    norm: Normalize | None = None,
    text: Callable[[float], str] | None = "{:.3g}".format,
    spread: ArrayLike | None = None,
) -> ScalarMappable:
    """Draw a surface with named rows (downwards) and columns, a number in every cell; return what `color_bar` takes.

    Args:
        panel: an empty panel.
        values: (rows, columns); NaN leaves a hole with a dash.
        rows: names of the rows, from above.
        columns: names of the columns.
        norm: from `shared_norm`; of these values alone by default. One with a centre gets two-sided shades.
        text: number -> what stands in a cell; None for bare shades. Many cells stay bare.
        spread: (rows, columns), half the width of the interval of every value, written below it; NaN where unknown.

    Raises:
        ValueError: `values` or `spread` has another shape than the names.
    """
    surface = np.asarray(values, dtype=np.float64)
    around = np.full(surface.shape, np.nan) if spread is None else np.asarray(spread, dtype=np.float64)
    for name, given in (("values", surface), ("spread", around)):
        if given.shape != (len(rows), len(columns)):
            raise ValueError(f"{name} has shape {given.shape}; the names ask for {(len(rows), len(columns))}")
    chosen = norm or shared_norm([surface])
    image = shade(panel, np.arange(len(columns) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5, surface, chosen)
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(rows)), rows)
    panel.tick_params(length=0)
    if text is not None and surface.size <= _MOST_TEXTS:
        for (row, column), value in np.ndenumerate(surface):
            half = float(around[row, column])
            told = text(float(value)) + (f"\n± {text(half)}" if np.isfinite(half) else "")
            _write(panel, column, row, float(value), told, image)
    return image


def shade(panel: Axes, x: ArrayLike, y: ArrayLike, values: NDArray[np.float64], norm: Normalize) -> ScalarMappable:
    """Draw bare shades between edges, such as steps and layers, first row above; return what `color_bar` takes.

    Args:
        panel: an empty panel.
        x: (columns + 1,) edges.
        y: (rows + 1,) edges.
        values: (rows, columns); NaN leaves a hole.
        norm: from `shared_norm`.
    """
    image = panel.pcolormesh(
        *(np.asarray(x), np.asarray(y), np.ma.masked_invalid(values)),
        cmap=CENTRED if isinstance(norm, TwoSlopeNorm) else ORDERED,
        norm=norm,
        edgecolors="face",  # without, a page shows through between the cells
        linewidth=0.4,
        rasterized=values.size > 1500,  # many small paths would make the drawing large
    )
    panel.grid(False)
    panel.invert_yaxis()
    for side in ("left", "bottom"):
        panel.spines[side].set_visible(False)
    return image


def color_bar(figure: Figure, axes: Sequence[Axes], image: ScalarMappable, label: str) -> None:
    """Put one colour bar right of `axes`, as high as all of them; `panels(..., labels=1.0)` leaves room for it."""
    places = [panel.get_position() for panel in axes]
    right, low, high = max(p.x1 for p in places), min(p.y0 for p in places), max(p.y1 for p in places)
    bar = figure.colorbar(image, cax=figure.add_axes((right + 0.045, low, 0.022, high - low)), label=label)
    bar.outline.set_visible(False)
    if isinstance(image.norm, LogNorm):
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _limits(found: NDArray[np.float64]) -> tuple[float, float]:
    if not len(found):
        return 0.0, 1.0
    middle = float(np.median(found))
    reach = _FAR * float(np.median(np.abs(found - middle)))
    near = found[np.abs(found - middle) <= reach] if reach else found
    low, high = float(near.min()), float(near.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _write(panel: Axes, x: int, y: int, value: float, text: str, image: ScalarMappable) -> None:
    if not np.isfinite(value):
        panel.text(x, y, "–", ha="center", va="center", color=INK, fontsize=8.5)  # noqa: RUF001
        return
    red, green, blue, _ = (float(part) for part in image.to_rgba(np.array([value]))[0])
    light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
    panel.text(x, y, text, ha="center", va="center", color=ON_LIGHT if light else ON_DARK, fontsize=8.5)
