"""Block parameters over steps: whether methods that are compared really had the same size at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.cells import Comparison, compare, label
from paper_tables.curves import at_target, dense_blocks, last_step, sizes
from paper_tables.formats import share
from paper_tables.item import Plot
from paper_tables.style import color, label_ends, line_style, panels
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without a size history at any target."""
    comparison = compare(records)
    dense = dense_blocks(comparison)
    if not comparison.targets or not dense:
        return None
    figure, axes = panels(len(comparison.targets), height=2.6)
    for panel, target in zip(axes, comparison.targets, strict=True):
        _draw(panel, comparison, target, dense)
        panel.set_title(f"{share(target)} of the block parameters kept")
        panel.set_ylabel("block parameters (%)")
    axes[-1].set_xlabel("step")
    return figure


def _draw(panel: Axes, comparison: Comparison, target: float, dense: int) -> None:
    ends = []
    for cell in at_target(comparison, target):
        trajectories = [sizes(record, dense) for record in cell.records if record.plan_history]
        for trajectory in trajectories:
            panel.step(
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
    panel.set_ylim(0, 106)
    panel.set_xlim(0, max(last_step(record) for record in comparison.records))
    label_ends(panel, ends)


ITEM = Plot(
    name="size_over_steps",
    title="Size over steps",
    caption="Stored block parameters in percent of the dense model's, one line per seed; lines that agree lie on "
    "one another. Who stays large longer learns more, so only equal curves compare fairly.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
    place=4,
)
