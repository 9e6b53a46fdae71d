"""Block parameters over steps: whether methods that are compared really had the same size at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.curves import Panel, last_step, pair_notes, panels_of, sizes
from paper_tables.analysis.training_length import dense_blocks
from paper_tables.drawing.style import color, label_ends, line_style, panels
from paper_tables.item import Plot
from paper_tables.methods import label
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without a size history."""
    found = [panel for panel in panels_of(records) if dense_blocks(panel.comparison.records)]
    if not found:
        return None
    figure, axes = panels(len(found), height=2.6)
    for axis, panel in zip(axes, found, strict=True):
        _draw(axis, panel, dense_blocks(panel.comparison.records))
        axis.set_title(panel.title)
        axis.set_ylabel("block parameters (%)")
        axis.set_xlabel("step")
    return figure


def _draw(axis: Axes, panel: Panel, dense: int) -> None:
    ends = []
    for cell in panel.cells:
        trajectories = [sizes(record, dense) for record in cell.records if record.plan_history]
        for trajectory in trajectories:
            axis.step(
                [step for step, _ in trajectory],
                [100 * left for _, left in trajectory],
                line_style(cell.method),
                where="post",
                color=color(cell.method),
                linewidth=2.0 if cell.method == "ecospa" else 1.2,
                zorder=3 if cell.method == "ecospa" else 2,
            )
        if trajectories:
            step, left = trajectories[0][-1]
            ends.append((step, 100 * left, label(cell.method), color(cell.method)))
    axis.set_ylim(0, max(106.0, 1.06 * max(left for _, left, _, _ in ends)))
    axis.set_xlim(0, max(last_step(record) for record in panel.comparison.records))
    label_ends(axis, ends)


ITEM = Plot(
    name="size_over_steps",
    title="Size over steps",
    caption="Block parameters that are not zero, in percent of the dense model's, one line per seed; lines that agree "
    "lie on one another. Dotted: masks, which store the zeros. Who stays large longer learns more, so only equal "
    "curves compare fairly.",
    experiments=(),
    build=build,
    notes=pair_notes,
    place=62,
    each=True,
)
