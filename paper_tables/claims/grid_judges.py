"""Judges of claims about K and theta, from the grids of both: a sweep of perplexity, and fine-tuning of a BERT."""

from __future__ import annotations

from collections.abc import Sequence

from paper_tables.analysis.comparability import flaw
from paper_tables.analysis.fine_tuning_grid import PAPER, SAME_SIZE, Grid, surface, unanswered
from paper_tables.analysis.formats import difference
from paper_tables.analysis.intervals import paired_difference
from paper_tables.analysis.k_theta_grid import EXPERIMENT as SWEEP
from paper_tables.analysis.k_theta_grid import FROM_SCRATCH, Axis, Stage, at_one_size, axis_ends, effect, stages
from paper_tables.analysis.losses import MARGIN, nats
from paper_tables.analysis.precondition import unmet
from paper_tables.analysis.shared_cells import of_experiment
from paper_tables.claims.verdicts import Judge, Verdict, needs, ruled
from results import RunRecord


def better(axis: Axis, stage: str, *, larger: bool) -> Judge:
    """Return the judge of "a larger (or smaller) value of an axis has a lower loss" in a stage."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        found = stages(of_experiment(records, SWEEP)).get(stage)
        measured = None if found is None else effect(found.points, axis)
        if found is None or measured is None:
            return needs(f"python -m benchmarks run {SWEEP} --tier {tier}")
        if not at_one_size(found.points, axis):
            return needs("one final size at both ends")
        own = measured if larger else measured.mirrored()
        ends = "largest minus smallest" if larger else "smallest minus largest"
        return ruled(
            own,
            0.0,
            f"{ends}: {nats(own)} nats",
            tuple(record_id for point in found.points for record_id in point.cell.ids),
            experiment=SWEEP,
            full_scale=tier == "paper",
            margin=MARGIN,
            flaw=_flaw(found, axis) or (_unmet(found) if stage == FROM_SCRATCH else ""),
        )

    return judge


def _flaw(stage: Stage, axis: Axis) -> str:
    found = (flaw(low.cell, high.cell) for low, high in axis_ends(stage.points, axis) or ())
    return next((text for text in found if text), "")


def _unmet(stage: Stage) -> str:
    """Return the reason why the stage decides nothing at any of its sizes; all its cells have one."""
    targets = sorted({point.cell.target for point in stage.points if point.cell.target is not None})
    return next((reason for target in targets if (reason := unmet(stage.comparison, target))), "")


def smaller_k_is_better(grid: Grid, theta: float = PAPER[1]) -> Judge:
    """Return the judge of "when weights are fine-tuned, the smallest K is better than the largest" at one theta."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        own = [r for r in records if r.experiment == grid.experiment and (r.config.get("model") or {}).get("weights")]
        cells = {k: cell for (k, found), cell in surface(own).items() if found == theta}
        if len(cells) < 2:
            return needs(f"python -m benchmarks run {grid.experiment} --tier {tier}")
        small, large = cells[min(cells)], cells[max(cells)]
        effect = paired_difference(small.values(grid.metric), large.values(grid.metric))
        sizes = [cell.interval("block_parameters") for cell in (small, large)]
        if effect is None or not all(sizes) or abs(sizes[0].mean / sizes[1].mean - 1) > SAME_SIZE:  # type: ignore[union-attr]
            return needs("the same seeds of both, down to one size")
        return ruled(
            effect.mirrored(),
            0.0,
            f"{grid.named} {difference(effect)}",
            small.ids + large.ids,
            experiment=grid.experiment,
            full_scale=False,
            flaw=flaw(small, large) or unanswered(own, grid),
        )

    return judge
