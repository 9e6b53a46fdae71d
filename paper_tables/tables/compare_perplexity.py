"""Trained models compressed at once, in short: perplexity of every method at every size, model by model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    Comparison,
    by_model,
    compare,
)
from paper_tables.analysis.formats import NOTHING, missed, quantity, share
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label, rank, removes
from results import RunRecord


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model and method: the dense model first, then the best at the smallest size first.

    Every size of any model has a column.
    """
    found = {model: compare(own) for model, own in by_model(records).items()}
    sizes = tuple(sorted({size for comparison in found.values() for size in comparison.targets}, reverse=True))
    return pd.DataFrame([row for model, comparison in found.items() for row in _rows(model, comparison, sizes)])


def _rows(model: str, comparison: Comparison, sizes: Sequence[float]) -> list[dict[str, str]]:
    methods: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in comparison.cells:
        methods[cell.method].append(cell)
    ordered = sorted(methods, key=lambda method: (*_smallest(methods[method]), rank(method)))
    return [_row(model, method, methods[method], sizes) for method in ordered]


def _smallest(cells: Sequence[Cell]) -> tuple[float, float]:
    """Return what rows are sorted by: the dense model first, then the perplexity of a method's smallest model."""
    found = []
    for cell in cells:
        size, score = cell.interval("block_share"), cell.interval("perplexity")
        found.append((float("inf") if size is None else size.mean, float("inf") if score is None else score.mean))
    size_of_all, least = min(found)
    return (0.0 if size_of_all == 1 else 1.0), least


def _row(model: str, method: str, cells: Sequence[Cell], sizes: Sequence[float]) -> dict[str, str]:
    row = {"Model": model, "Method": label(method), "Removes": removes(method), "100%": NOTHING}
    row |= {share(size): NOTHING for size in sizes}
    for cell in cells:
        measured = cell.interval("block_share")
        size = 1.0 if measured is None else measured.mean
        at = cell.target if cell.target is not None else _nearest(sizes, size)
        text = quantity(cell.interval("perplexity"))
        row["100%" if at is None else share(at)] = f"{text} at {share(round(size, 2))}" if missed(at, size) else text
    return {**row, "Seeds": str(max(len(cell.records) for cell in cells)), RECORDS: " ".join(_ids(cells))}


def _nearest(sizes: Sequence[float], measured: float) -> float | None:
    """Return the column of a method that has one size only; None for the dense model."""
    return None if measured == 1 else min(sizes, key=lambda size: abs(size - measured), default=None)


def _ids(cells: Sequence[Cell]) -> list[str]:
    return [name for cell in cells for name in cell.ids]


ITEM = Table(
    name="compare_perplexity",
    title="One-shot compression of trained models, in short",
    caption="Perplexity at each share of the block parameters that is left, without any training afterwards; "
    "mean over calibration seeds ± half the width of the 95% interval. A method that ended at another size has "
    "its own share beside the number: whole blocks are coarse, and a 2:4 pattern leaves biases and norms.",
    experiments=("compare",),
    build=build,
    place=5,
)
