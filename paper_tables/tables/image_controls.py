"""EcoSpa against every other method on images, paired by seed: the controls of coupled_vs_uncoupled on a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import Cell, Comparison, by_model, compare
from paper_tables.analysis.formats import NOTHING, difference, quantity, share
from paper_tables.analysis.intervals import Interval, paired_difference
from paper_tables.analysis.losses import nats, smallest
from paper_tables.claims.quality_judges import from_scratch
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label
from paper_tables.tables import controls
from results import RunRecord


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model, target share and other method of equal training that shares a seed with EcoSpa."""
    rows = [
        _row(model, comparison, ours, theirs, effect)
        for model, own in by_model(records).items()
        for comparison in [compare(own)]
        for ours, theirs, effect in controls.pairs(own)
    ]
    return pd.DataFrame(rows)


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return whether size matters at each target of every model, and what is left out as trained otherwise."""
    found = [(model, line) for model, own in by_model(records).items() for line in controls.notes(own)]
    several = len({model for model, _ in found}) > 1
    return tuple(f"{model}: {line}" if several else line for model, line in found)


def _row(model: str, comparison: Comparison, ours: Cell, theirs: Cell, effect: Interval) -> dict[str, str]:
    points = paired_difference(*({k: 100 * v for k, v in cell.values("top1").items()} for cell in (ours, theirs)))
    verdict = from_scratch(comparison, ours, theirs, "", ours.records[0].experiment, full_scale=False)
    return {
        "Model": model,
        "Blocks kept": share(ours.target),
        "EcoSpa against": label(theirs.method),
        "Nats per image": nats(effect),
        "Top-1 points": NOTHING if points is None else difference(points),
        "Detectable": smallest(effect) or NOTHING,
        "Reading": verdict.reading,
        "Seeds": str(effect.n),
        "Top-1, EcoSpa": quantity(ours.interval("top1"), "percent"),
        "Top-1, other": quantity(theirs.interval("top1"), "percent"),
        "Run FLOPs, EcoSpa": quantity(ours.interval("run_flops"), "count"),
        "Run FLOPs, other": quantity(theirs.interval("run_flops"), "count"),
        RECORDS: " ".join((*ours.ids, *theirs.ids)),
    }


ITEM = Table(
    name="image_controls",
    title="Images: EcoSpa against each other method",
    caption="Cross-entropy on the test images, nats per image, and top-1 accuracy in percentage points, of EcoSpa "
    "minus the other method, paired by seed, with the 95% interval; below zero nats EcoSpa is better. Detectable: "
    "smallest difference in nats that as many seeds detect (two-sided 5%, power 80%). No claim of the paper is known.",
    experiments=("vit_cifar10", "deit_imagenet"),
    build=build,
    notes=notes,
    place=21,
)
