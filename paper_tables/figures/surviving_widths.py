"""Widths that EcoSpa removes over training: one row per layer, one panel per kind of pair."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paper_tables.analysis.curves import Panel, last_step, panels_of
from paper_tables.analysis.pair_widths import KINDS
from paper_tables.drawing.heat_map import color_bar, shade
from paper_tables.drawing.style import panels
from paper_tables.item import Plot
from results import RunRecord


def build(records: Sequence[RunRecord]) -> Figure | None:
    """Return the figure of one run, or None without widths that changed."""
    chosen = _chosen(records)
    if chosen is None:
        return None
    record = chosen[1]
    rows = {kind: pairs_by_layer(record, kind) for kind in KINDS}
    rows = {kind: names for kind, names in rows.items() if names}
    if not rows:
        return None
    figure, axes = panels(len(rows), height=max(1.0, 0.19 * max(map(len, rows.values()))), labels=1.0)
    for panel, (kind, names) in zip(axes, rows.items(), strict=True):
        shares = _shares(record, names)
        steps = [event.step for event in record.plan_history]
        edges = [*steps, max(last_step(record), steps[-1] + 1)]
        image = shade(panel, edges, np.arange(len(names) + 1) - 0.5, 100 * shares, Normalize(0, 100))
        panel.set_title(KINDS[kind])
        panel.set_ylabel("layer")
        panel.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes[-1].set_xlabel("step")
    color_bar(figure, axes, image, "width left (%)")
    return figure


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return which run is shown."""
    chosen = _chosen(records)
    if chosen is None:
        return ()
    setting = f"{chosen[0].title}, " if chosen[0].title else ""
    return (f"Surviving widths: {setting}seed {chosen[1].seed}, record {chosen[1].id}.",)


def _chosen(records: Sequence[RunRecord]) -> tuple[Panel, RunRecord] | None:
    """Return the first seed of EcoSpa in the last panel, which has the smallest target."""
    for panel in reversed(panels_of(records)):
        for cell in panel.cells:
            if cell.method == "ecospa" and len(cell.records[0].plan_history) > 1:
                return panel, cell.records[0]
    return None


def pairs_by_layer(record: RunRecord, kind: str) -> list[str]:
    """Return the names of the pairs of one kind, by layer: the first number in the name."""
    names = [name for name in record.plan_history[0].widths if name.rpartition(".")[2] == kind]
    return sorted(names, key=lambda name: (int(found[0]) if (found := re.findall(r"\d+", name)) else 0, name))


def _shares(record: RunRecord, names: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    dense = record.plan_history[0].widths
    rows = [[event.widths.get(name, dense[name]) / dense[name] for event in record.plan_history] for name in names]
    return np.array(rows, dtype=np.float64)


ITEM = Plot(
    name="surviving_widths",
    title="Surviving widths",
    caption="Width of every pair in percent of the dense model's, EcoSpa, first seed, smallest target share.",
    experiments=(),
    build=build,
    notes=notes,
    place=64,
    each=True,
)
