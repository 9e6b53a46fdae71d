"""Bytes that training holds over steps, counted from the size history: weights, gradients, optimizer state.

AdamW in single precision keeps four numbers of four bytes for every stored parameter: the weight, its gradient and two
moments (mixed precision keeps these too). Activations are not in it. A record that counted its tensors (the metric
training_bytes) decides: where it disagrees with the count, its method trains otherwise, and only its own two numbers
are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.curves import Panel, last_step, pair_notes, panels_of
from paper_tables.drawing.style import BLUE, GREEN, ORANGE, color, label_ends, line_style, marker, panels
from paper_tables.item import Plot
from paper_tables.methods import label
from results import RunRecord

BYTES = 4
CATEGORIES = (("weights", 1, BLUE), ("gradients", 1, ORANGE), ("optimizer state", 2, GREEN))
"""Name, numbers kept per stored parameter, colour."""

_PER_PARAMETER = BYTES * sum(count for _, count, _ in CATEGORIES)
_AGREES = 0.02
_UNCOUNTED = ("galore", "lora", "relora")  # their optimizers keep less, or not all of their weights train


@dataclass(frozen=True)
class Held:
    """Bytes over steps of one run; `counted` says that every step between the ends is known, not only peak and end."""

    steps: tuple[float, ...]
    bytes: tuple[float, ...]
    counted: bool


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure, or None without a run that shrinks: constant lines tell nothing that a table does not."""
    found = [panel for panel in panels_of(records) if _shrinks(panel)]
    if not found:
        return None
    figure, axes = panels(len(found) + 1, height=2.6, labels=2.4)
    for axis, panel in zip(axes, found, strict=False):
        _draw_methods(axis, panel)
        axis.set_title(panel.title)
    _draw_categories(axes[-1], found[-1])
    axes[-1].set_title(f"{found[-1].title}: EcoSpa".lstrip(": "))
    for axis in axes:
        axis.set_ylabel("training holds (MB)")
        axis.set_xlabel("step")
    return figure


def held(record: RunRecord) -> Held | None:
    """Return what the training of a record held over its steps; None where neither count nor measurement tells."""
    history, metrics = record.plan_history, record.metrics
    counted = _counted(record) if history and record.method not in _UNCOUNTED else None
    if "training_bytes_peak" not in metrics:
        return counted
    peak, end = metrics["training_bytes_peak"].value, metrics["training_bytes"].value
    if counted is not None and abs(max(counted.bytes) - peak) <= _AGREES * peak:
        return counted
    return Held((0.0, float(last_step(record))), (peak, end), counted=abs(peak - end) <= _AGREES * peak)


def _counted(record: RunRecord) -> Held:
    """Return bytes per stored parameter times the size history; masks store all parameters to the end."""
    history = record.plan_history
    stored = record.metrics["parameters"].value if "parameters" in record.metrics else 0.0
    masks = stored > 1.001 * history[-1].parameters
    sizes = [float(history[0].parameters if masks else event.parameters) for event in history]
    steps = [float(event.step) for event in history] + [float(last_step(record))]
    return Held(tuple(steps), tuple(_PER_PARAMETER * size for size in (*sizes, sizes[-1])), counted=True)


def _shrinks(panel: Panel) -> bool:
    ours = next((cell for cell in panel.cells if cell.method == "ecospa"), None)
    return ours is not None and len(ours.records[0].plan_history) > 1


def _draw_methods(axis: Axes, panel: Panel) -> None:
    ends = []
    for cell in panel.cells:
        found = held(cell.records[0])
        if found is None:
            continue
        own, ours = color(cell.method), cell.method == "ecospa"
        megabytes = [value / 1e6 for value in found.bytes]
        axis.step(
            *(found.steps, megabytes, line_style(cell.method) if found.counted else "none"),
            where="post",
            color=own,
            linewidth=2.2 if ours else 1.2,
            zorder=3 if ours else 2,
        )
        peak = int(np.argmax(megabytes))
        places = [peak, len(megabytes) - 1]
        axis.plot(
            [found.steps[place] for place in places],
            [megabytes[place] for place in places],
            *(marker(cell.method),),
            color=own,
            markersize=5,
            clip_on=False,
            zorder=4,
        )
        text = f"{label(cell.method)} {_megabytes(megabytes[peak])}"
        text += "" if megabytes[peak] == megabytes[-1] else f", {_megabytes(megabytes[-1])}"
        ends.append((found.steps[-1], megabytes[-1], text, own))
    axis.set_ylim(0, 1.08 * max(axis.get_ylim()[1], 1e-9))
    axis.set_xlim(0, max(last_step(record) for record in panel.comparison.records))
    label_ends(axis, ends, emphasis=next((text for _, _, text, own in ends if own == color("ecospa")), ""))


def _draw_categories(axis: Axes, panel: Panel) -> None:
    record = next(cell.records[0] for cell in panel.cells if cell.method == "ecospa")
    counted = _counted(record)
    per_number = np.array(counted.bytes) / 1e6 / sum(count for _, count, _ in CATEGORIES)
    below, ends = np.zeros_like(per_number), []
    for name, count, shade in CATEGORIES:
        above = below + count * per_number
        axis.fill_between(counted.steps, below, above, step="post", color=shade, alpha=0.75, linewidth=0)
        text = f"{name} {_megabytes(count * per_number.max())}, {_megabytes(count * per_number[-1])}"
        ends.append((counted.steps[-1], float(below[-1] + above[-1]) / 2, text, shade))
        below = above
    axis.set_ylim(0, 1.08 * float(below.max()))
    axis.set_xlim(0, counted.steps[-1])
    label_ends(axis, ends)


def _megabytes(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


ITEM = Plot(
    name="memory_over_steps",
    title="What training holds",
    caption="Weights, gradients and optimizer state in MB, first seed; peak and end are marked and stand at the lines. "
    "Counted, not measured: four numbers of four bytes per stored parameter (AdamW), no activations. Marks without a "
    "line: methods that train otherwise, whose record counted its tensors.",
    experiments=(),
    build=build,
    notes=pair_notes,
    place=63,
    each=True,
)
