"""Judges of claims about K and theta, from the grids of both: a sweep of perplexity, and F1 on SQuAD."""

from __future__ import annotations

from collections.abc import Sequence

from paper_tables.analysis.formats import difference
from paper_tables.analysis.intervals import paired_difference
from paper_tables.analysis.k_theta_grid import EXPERIMENT as SWEEP
from paper_tables.analysis.k_theta_grid import (
    Axis,
    at_one_size,
    effect,
    stages,
)
from paper_tables.analysis.squad_grid import EXPERIMENT as SQUAD
from paper_tables.analysis.squad_grid import PAPER, SAME_SIZE, surface
from paper_tables.claims.verdicts import Judge, Verdict, decide, needs
from results import RunRecord


def better(axis: Axis, stage: str, *, larger: bool) -> Judge:
    """Return the judge of "a larger (or smaller) value of an axis has a lower perplexity" in a stage."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        points = found.points if (found := stages(records).get(stage)) is not None else ()
        measured = effect(points, axis)
        if measured is None:
            return needs(f"python -m benchmarks run {SWEEP} --tier {tier}")
        if not at_one_size(points, axis):
            return needs("one final size at both ends")
        own = measured if larger else measured.mirrored()
        kind, detail = decide(own, 0.0, full_scale=tier == "paper")
        ids = tuple(record_id for point in points for record_id in point.cell.ids)
        ends = "largest minus smallest" if larger else "smallest minus largest"
        return Verdict(kind, detail, f"perplexity, {ends}: {difference(own)}", own.n, ids)

    return judge


def smaller_k_is_better(theta: float = PAPER[1]) -> Judge:
    """Return the judge of "when weights are fine-tuned, the smallest K gives a higher F1 than the largest"."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        started = [r for r in records if r.experiment == SQUAD and (r.config.get("model") or {}).get("weights")]
        cells = {k: cell for (k, own), cell in surface(started).items() if own == theta}
        if len(cells) < 2:
            return needs(f"trained weights: python -m benchmarks run {SQUAD} --tier {tier} --weights DIR")
        small, large = cells[min(cells)], cells[max(cells)]
        effect = paired_difference(small.values("f1"), large.values("f1"))
        sizes = [cell.interval("block_parameters") for cell in (small, large)]
        if effect is None or not all(sizes) or abs(sizes[0].mean / sizes[1].mean - 1) > SAME_SIZE:  # type: ignore[union-attr]
            return needs("the same seeds of both, down to one size")
        kind, detail = decide(effect.mirrored(), 0.0, full_scale=False)
        return Verdict(kind, detail, f"F1 {difference(effect)}", effect.n, small.ids + large.ids)

    return judge
