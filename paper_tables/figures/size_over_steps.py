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

Trajectory = tuple[tuple[float, float], ...]


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without a size history at any target."""
    comparison = compare(records)
    dense = dense_blocks(comparison)
    if not comparison.targets or not dense:
        return None
    figure, axes = panels(len(comparison.targets), height=2.6, labels=2.1)
    for panel, target in zip(axes, comparison.targets, strict=True):
        _draw(panel, comparison, target, dense)
        panel.set_title(f"{share(target)} of the block parameters kept")
        panel.set_ylabel("block parameters (%)")
    axes[-1].set_xlabel("step")
    return figure


def _draw(panel: Axes, comparison: Comparison, target: float, dense: int) -> None:
    groups: dict[Trajectory, list[str]] = {}
    for cell in at_target(comparison, target):
        shown = [tuple(sizes(record, dense)) for record in cell.records if record.plan_history]
        for trajectory in shown:
            steps, shares = zip(*trajectory, strict=True)
            panel.step(
                *(steps, [100 * value for value in shares], line_style(cell.method)),
                where="post",
                color=color(cell.method),
                linewidth=2.0 if cell.method == "ecospa" else 1.2,
                zorder=3 if cell.method == "ecospa" else 2,
            )
        if shown:
            groups.setdefault(shown[0], []).append(cell.method)
    panel.set_ylim(0, 106)
    panel.set_xlim(0, max(last_step(record) for record in comparison.records))
    ends = [(line[-1][0], 100 * line[-1][1], _names(methods), color(methods[0])) for line, methods in groups.items()]
    label_ends(panel, ends)


def _names(methods: Sequence[str]) -> str:
    """Methods with one and the same curve share a label."""
    return ",\n".join(label(method) for method in methods)


ITEM = Plot(
    name="size_over_steps",
    title="Size over steps",
    caption="Stored block parameters in percent of the dense model's, one line per seed; methods whose curves agree "
    "share a label. Who stays large longer learns more, so only equal curves compare fairly.",
    experiments=("coupled_vs_uncoupled",),
    build=build,
)
