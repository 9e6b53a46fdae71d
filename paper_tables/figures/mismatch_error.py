"""Relative error of a product of two matrices against the share of indices removed (the paper's Appendix A)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.cells import compare
from paper_tables.analysis.curves import Band
from paper_tables.claims.judges import error_curves
from paper_tables.drawing.style import SERIES, End, label_ends, logarithmic, panels
from paper_tables.item import Plot
from results import RunRecord

MATRICES = {"random": "Gaussian", "scaled": "columns of unequal scale", "low_rank": "low rank", "trained": "trained"}
REMOVALS = ("aligned", "misaligned", "random")


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure with one panel per kind of matrix, or None without a curve."""
    curves = [error_curves(record) for record in compare(records).records]
    present = {matrix for found in curves for matrix, _ in found}
    matrices = [name for name in MATRICES if name in present] + sorted(present - MATRICES.keys())
    if not matrices:
        return None
    figure, axes = panels(len(matrices), height=2.1, columns=2, labels=0.95)
    for place, (panel, matrix) in enumerate(zip(axes, matrices, strict=True)):
        ends = _draw(panel, {kind: [c[matrix, kind] for c in curves if (matrix, kind) in c] for kind in REMOVALS})
        if place % 2 or place == len(axes) - 1:  # one set of labels per row
            label_ends(panel, ends, emphasis="aligned")
        panel.set_title(MATRICES.get(matrix, matrix))
        panel.set_xlabel("indices removed (%)")
    for panel in axes[::2]:
        panel.set_ylabel("relative error (log scale)")
    return figure


def _draw(panel: Axes, by_removal: dict[str, list[dict[float, float]]]) -> list[End]:
    """Draw one line per removal and return the ends to label."""
    logarithmic(panel)
    ends = []
    for shade, (removal, curves) in zip(SERIES, by_removal.items(), strict=True):
        found = _band(curves)
        if found is None:
            continue
        panel.fill_between(found.x, found.low, found.high, color=shade, alpha=0.18, linewidth=0)
        panel.plot(found.x, found.mean, color=shade, linewidth=2.0 if removal == "aligned" else 1.4)
        ends.append((float(found.x[-1]), float(found.mean[-1]), removal, shade))
    return ends


def _band(curves: Sequence[dict[float, float]]) -> Band | None:
    """Return the mean and range of the points that every curve has; an error of zero has no place on a log axis."""
    if not curves:
        return None
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    shares = [share for share in common if all(curve[share] > 0 for curve in curves)]
    if not shares:
        return None
    values = np.array([[curve[share] for share in shares] for curve in curves], dtype=np.float64)
    x = 100 * np.array(shares, dtype=np.float64)
    return Band(x, values.mean(axis=0), values.min(axis=0), values.max(axis=0))


ITEM = Plot(
    name="mismatch_error",
    title="Error of aligned and mismatched removal",
    caption="Relative error of the product, logarithmic; mean over seeds, the band spans the lowest and highest seed. "
    "Random: random indices, aligned. On trained weights it errs more than misaligned removal, which still keeps what "
    "is large.",
    experiments=("mismatch_error",),
    build=build,
    place=6,
)
