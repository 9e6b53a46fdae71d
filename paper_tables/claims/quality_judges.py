"""Judges of claims about the quality of language models: ours minus theirs in nats per token, paired by seed.

From scratch a comparison counts only where `paper_tables.analysis.precondition` is met.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paper_tables.analysis.cells import Cell, Comparison, by_model, compare, shape
from paper_tables.analysis.comparability import flaw, unequal
from paper_tables.analysis.fine_tuning import protocols
from paper_tables.analysis.losses import MARGIN, Gap, gap
from paper_tables.analysis.precondition import unmet
from paper_tables.analysis.real_models import is_real
from paper_tables.analysis.shared_cells import of_experiment
from paper_tables.analysis.training_length import trained_enough
from paper_tables.claims.verdicts import (
    CANNOT_DECIDE,
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    NOT_RUN,
    UNDECIDED,
    Judge,
    Verdict,
    needs,
    ruled,
)
from results import RunRecord

TRAINING = "coupled_vs_uncoupled"
PRETRAINED = "pretrained_shrink"
LLAMA = "llama_pretraining"
FINETUNING = "llama_finetuning"
LLAMA_1B = (2048, 24)
"""Width and layers of the model that the paper's headlines are about."""
NEEDS_1B = "LLaMA-1B (24 layers of 2048)"


def beats(other: str, target: float | None, experiment: str = TRAINING) -> Judge:
    """Return the judge of "EcoSpa has a lower loss than `other` at `target`" in an experiment from scratch.

    Args:
        other: a method.
        target: share of the block parameters; None for the smallest that both have, where a claim names none.
        experiment: whose records.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        comparison = compare(of_experiment(records, experiment))
        size = _shared_target(comparison, other) if target is None else target
        ours, theirs = comparison.get("ecospa", size), comparison.get(other, size)
        command = f"python -m benchmarks run {experiment} --tier {tier} --methods ecospa {other}"
        if size is None or ours is None or ours.target != size or theirs is None or theirs.target not in (None, size):
            return needs(command)
        return from_scratch(comparison, ours, theirs, command, experiment, full_scale=tier == "paper")

    return judge


def from_scratch(
    comparison: Comparison,
    ours: Cell,
    theirs: Cell,
    command: str,
    experiment: str,
    *,
    full_scale: bool,
    published: float | None = None,
) -> Verdict:
    """Return the verdict on "ours has a lower loss than theirs" for models that were trained from scratch.

    Args:
        comparison: where both come from, with the dense and the small dense model.
        ours: a shrunk model.
        theirs: any other.
        command: runs both.
        experiment: that the claim is about.
        full_scale: whether the models are those of the claim.
        published: difference in perplexity that was claimed. In nats it is that at the measured perplexity of theirs.
    """
    if other_training := unequal(ours, theirs):
        return needs(f"runs of equal training, not {other_training}: {command}")
    found = gap(ours, theirs)
    if found is None:
        return needs(f"the same seeds of both methods: {command}")
    return ruled(
        found.nats,
        0.0,
        found.text,
        ours.ids + theirs.ids,
        experiment=experiment,
        full_scale=full_scale,
        published=None if published is None else _in_nats(published, theirs),
        margin=MARGIN,
        flaw=flaw(ours, theirs) or unmet(comparison, ours.target or 1.0),
    )


def _in_nats(published: float, theirs: Cell) -> float | None:
    """Return a published difference in perplexity as one in nats, at the perplexity of the model it was measured to."""
    values = theirs.values("perplexity").values()
    whole = statistics.fmean(values) if values else 0.0
    return math.log1p(published / whole) if whole + published > 0 and whole > 0 else None


def _shared_target(comparison: Comparison, other: str) -> float | None:
    sizes = [{cell.target for cell in comparison.cells if cell.method == name} for name in ("ecospa", other)]
    return min((target for target in sizes[0] & sizes[1] if target is not None), default=None)


def on_largest_model(judge: Judge, experiment: str = LLAMA, name: str | None = None) -> Judge:
    """Return a judge that sees the largest model alone, where a tier has several sizes of one architecture.

    Models that were trained on enough text stand before larger ones that were not. The claims are about LLaMA-1B, so
    no other size stands before it, and at tier paper none stands in for it.

    Args:
        judge: who decides.
        experiment: whose records.
        name: of the model, where an experiment has several architectures.
    """

    def judge_largest(records: Sequence[RunRecord], tier: str) -> Verdict:
        own = [
            record
            for record in of_experiment(records, experiment)
            if name is None or (record.config.get("model") or {}).get("name") == name
        ]
        largest = _largest(own)
        if own and tier == "paper" and largest != LLAMA_1B:
            return needs(f"{NEEDS_1B}: python -m benchmarks run {experiment} --tier {tier}")
        return judge([record for record in own if shape(record) == largest], tier)

    return judge_largest


def _largest(records: Sequence[RunRecord]) -> tuple[int, int]:
    shapes = {shape(record) for record in records}
    if LLAMA_1B in shapes:
        return LLAMA_1B
    enough = {size for size in shapes if trained_enough([r for r in records if shape(r) == size])}
    return max(enough or shapes, default=(0, 0))


def beats_fine_tuned(other: str, target: float) -> Judge:
    """Return the judge of "with fine-tuning, EcoSpa has a lower loss than `other` at `target`", every model.

    The models are judged apart. Where a real one was run, toys decide nothing; of several the one on which EcoSpa does
    worst decides.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        command = f"python -m benchmarks run {FINETUNING} --tier {tier} --methods ecospa {other}"
        judged: list[_Judged] = []
        other_training = ""
        for own in protocols(of_experiment(records, FINETUNING)):
            ours, theirs = own.comparison.get("ecospa", target), own.comparison.get(other, target)
            if own.procedure != "fine-tuned" or ours is None or ours.target != target or theirs is None:
                continue
            if differing := unequal(ours, theirs):
                other_training = f"runs of equal training, not {differing}: "
            elif theirs.target in (None, target):
                judged += _judged(own.model, ours, theirs, tier)
        return _worst(judged) if judged else needs(f"{other_training}{command}")

    return judge


def grows_when_cut(target: float, smaller: float) -> Judge:
    """Return the judge of "with fine-tuning, EcoSpa's loss at `smaller` is above that at `target`"."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        judged: list[_Judged] = []
        for own in protocols(of_experiment(records, FINETUNING)):
            cells = {cell.target: cell for cell in own.comparison.cells if cell.method == "ecospa"}
            if own.procedure == "fine-tuned" and target in cells and smaller in cells:
                judged += _judged(own.model, cells[target], cells[smaller], tier)
        command = f"python -m benchmarks run {FINETUNING} --tier {tier} --methods ecospa"
        return _worst(judged) if judged else needs(command)

    return judge


@dataclass(frozen=True)
class _Judged:
    """One model of several: what it alone would decide."""

    model: str
    found: Gap
    verdict: Verdict


def _judged(model: str, ours: Cell, theirs: Cell, tier: str) -> list[_Judged]:
    """Return what a model decides; nothing where the cells share no seed."""
    found = gap(ours, theirs)
    if found is None:
        return []
    verdict = ruled(
        found.nats,
        0.0,
        f"{model}: {found.text}",
        ours.ids + theirs.ids,
        experiment=FINETUNING,
        full_scale=tier == "paper",
        margin=MARGIN,
        flaw=flaw(ours, theirs),
    )
    return [_Judged(model, found, verdict)]


_WORST_FIRST = (NOT_REPRODUCED, CANNOT_DECIDE, UNDECIDED, NO_DIFFERENCE)


def _worst(judged: Sequence[_Judged]) -> Verdict:
    """Return the verdict on the model that comes out worst: a loss before what is not decided before the direction.

    The end of an interval would not do: the noisiest model has the highest. Models with too few seeds decide nothing
    as long as another has enough; a toy decides nothing beside a real model, even one with too few seeds.
    """
    toys = [entry for entry in judged if not is_real(entry.model)]
    judged = [entry for entry in judged if is_real(entry.model)] or toys
    enough = [entry for entry in judged if entry.verdict.kind != NOT_RUN] or list(judged)
    worst = max(enough, key=lambda entry: (-_place(entry.verdict.kind), entry.found.nats.mean))
    few = [f"{entry.model} (n={entry.verdict.n})" for entry in judged if entry not in enough]
    left_out = f"; left out, too few seeds: {', '.join(few)}" if few else ""
    beside = "".join(f"; beside it {entry.model}: {entry.found.text}" for entry in toys if entry not in judged)
    return replace(worst.verdict, measured=f"{worst.verdict.measured}{left_out}{beside}")


def _place(kind: str) -> int:
    return _WORST_FIRST.index(kind) if kind in _WORST_FIRST else len(_WORST_FIRST)


def changes_when_cut(lower: str, higher: str) -> Judge:
    """Return the judge of "the metric `lower` is below `higher`" for a pre-trained model that is cut step by step.

    A real model decides before a toy does.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        first = next(iter(by_model(of_experiment(records, PRETRAINED)).values()), [])
        own = [cell for cell in compare(first).cells if cell.method == "ecospa"]
        cell = min(own, key=lambda cell: cell.target or 0.0, default=None)  # the claim is about the end
        found = None if cell is None else gap(cell, cell, (lower, higher))
        if cell is None or found is None:
            return needs(f"python -m benchmarks run {PRETRAINED} --tier {tier}")
        return ruled(
            found.nats,
            0.0,
            found.text,
            cell.ids,
            experiment=PRETRAINED,
            full_scale=tier == "paper",
            margin=MARGIN,
            flaw=flaw(cell),
        )

    return judge
