"""Perplexity of a pre-trained model while it is cut: after each cut, and after the short training that follows."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.cells import by_model, compare
from paper_tables.analysis.intervals import mean_interval
from paper_tables.drawing.style import INK, SERIES, label_ends, logarithmic, panels
from paper_tables.item import Plot
from paper_tables.tables.pretrained_shrink import Stage, stages, whole_model
from results import RunRecord

LINES = (("perplexity_cut", "after the cut", "v"), ("perplexity_recovered", "after recovery", "o"))
_WIDE, _NARROW = (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, a panel per model, or None without stages."""
    found = [(model, compare(own).records) for model, own in by_model(records).items()]
    shown = [(model, chosen, reached) for model, chosen in found if (reached := stages(chosen))]
    if not shown:
        return None
    figure, axes = panels(len(shown), height=3.2, labels=1.55)
    for panel, (model, chosen, reached) in zip(axes, shown, strict=True):
        panel.set_title(model)
        _draw(panel, chosen, reached)
    return figure


def _draw(panel: Axes, chosen: Sequence[RunRecord], found: Sequence[Stage]) -> None:
    """Draw the perplexity of one model at its stages, and of its dense one."""
    values = [stage.values[field].mean for stage in found for field, _, _ in LINES if field in stage.values]
    logarithmic(panel, _WIDE if max(values, default=1.0) > 8 * min(values, default=1.0) else _NARROW)
    ends = []
    for shade, (field, text, mark) in zip((SERIES[1], SERIES[0]), LINES, strict=True):
        points = [(100 * stage.values["size"].mean, stage.values[field]) for stage in found if field in stage.values]
        if not points:
            continue
        sizes, means = [size for size, _ in points], [value.mean for _, value in points]
        # An interval that reaches below zero has no place on a log axis; it is cut there.
        down = [min(value.half_width, 0.99 * value.mean) if value.n > 1 else 0.0 for _, value in points]
        up = [value.half_width if value.n > 1 else 0.0 for _, value in points]
        panel.errorbar(sizes, means, [down, up], fmt=mark + "-", color=shade, capsize=3, elinewidth=1.0)
        ends.append((sizes[-1], means[-1], text, shade))
    for dashes, (text, levels) in zip(("--", ":"), whole_model(chosen), strict=False):
        level = mean_interval(levels).mean
        panel.axhline(level, color=INK, linestyle=dashes, linewidth=1.0)
        ends.append((100 * found[-1].values["size"].mean, level, text, INK))
    panel.invert_xaxis()
    panel.set_xlabel("block parameters kept (%)")
    panel.set_ylabel("perplexity (log scale)")
    label_ends(panel, ends, emphasis="after recovery")


ITEM = Plot(
    name="pretrained_curve",
    title="A pre-trained model, cut step by step",
    caption="Mean over seeds with the 95% interval; logarithmic. The baseline is the dense model after as many steps "
    "of the same text (dotted); text that stories260K has sampled itself alone makes it worse than it came (dashed).",
    experiments=("pretrained_shrink",),
    build=build,
    place=7,
)
