"""Panels of the speed experiments: one per phase, one colour per model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_tables.analysis.speed import PHASES, Point
from paper_tables.drawing.style import BLUE, GREEN, GREY, LEFT, ORANGE, RED, panels

_COLORS = {"gpt2": BLUE, "llama": RED, "bert": GREEN, "vit": ORANGE}

Lines = TypeVar("Lines")


def model_color(model: str) -> str:
    """Return the colour of a model."""
    return _COLORS.get(model, GREY)


def phase_figure(
    found: Sequence[Point],
    lines_of: Callable[[Sequence[Point]], Lines],
    draw: Callable[[Axes, Lines], None],
    texts: tuple[str, str],
    labels: float,
    left: float = LEFT,
) -> Figure | None:
    """Return a figure with one panel per phase; None where no phase has lines.

    Args:
        found: points of any phases.
        lines_of: from the points of a phase to what is drawn; empty for no panel.
        draw: into a panel.
        texts: below the last panel, and left of each.
        labels, left: inches right and left of the panels, see `panels`.
    """
    drawn = {phase: lines for phase in PHASES if (lines := lines_of([p for p in found if p.phase == phase]))}
    if not drawn:
        return None
    figure, axes = panels(len(drawn), height=2.7, labels=labels, left=left)
    for axis, (phase, lines) in zip(axes, drawn.items(), strict=True):
        draw(axis, lines)
        axis.set_title(PHASES[phase])
        axis.set_ylabel(texts[1])
    axes[-1].set_xlabel(texts[0])
    return figure
