"""From records to the effect that a claim is about: who is compared, on which metric, paired by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from paper_tables.cells import Cell, compare, shape
from paper_tables.finetuned import protocols
from paper_tables.formats import difference, ratio
from paper_tables.intervals import mean_interval, paired_difference, paired_ratio
from paper_tables.published import PublishedNumber
from paper_tables.verdicts import Judge, Verdict, decide, needs
from results import RunRecord

TRAINING = "coupled_vs_uncoupled"
MISMATCH = "mismatch_error"
PRETRAINED = "pretrained_shrink"
LLAMA = "llama_pretraining"
FINETUNING = "llama_finetuning"

ErrorCurves = dict[tuple[str, str], dict[float, float]]


def beats(other: str, target: float, experiment: str = TRAINING) -> Judge:
    """Return the judge of "EcoSpa has a lower perplexity than `other` at `target`" in an experiment."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        comparison = compare(_of(records, experiment))
        ours, theirs = comparison.get("ecospa", target), comparison.get(other, target)
        command = f"python -m benchmarks run {experiment} --tier {tier} --methods ecospa {other}"
        if ours is None or ours.target != target or theirs is None or theirs.target not in (None, target):
            return needs(command)
        effect = paired_difference(ours.values("perplexity"), theirs.values("perplexity"))
        if effect is None:
            return needs(f"the same seeds of both methods: {command}")
        kind, detail = decide(effect, 0.0, full_scale=tier == "paper")
        return Verdict(kind, detail, f"perplexity {difference(effect)}", effect.n, ours.ids + theirs.ids)

    return judge


def on_largest_model(judge: Judge) -> Judge:
    """Return a judge that sees the largest model alone, where a tier has several sizes of one architecture."""

    def judge_largest(records: Sequence[RunRecord], tier: str) -> Verdict:
        pretraining = _of(records, LLAMA)
        largest = max((shape(record) for record in pretraining), default=(0, 0))
        return judge([record for record in pretraining if shape(record) == largest], tier)

    return judge_largest


def beats_fine_tuned(other: str, target: float) -> Judge:
    """Return the judge of "with fine-tuning, EcoSpa has a lower perplexity than `other` at `target`", every model.

    The models are judged apart; the one on which EcoSpa does worst decides.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        command = f"python -m benchmarks run {FINETUNING} --tier {tier} --methods ecospa {other}"
        found = []
        for own in protocols(_of(records, FINETUNING)):
            ours, theirs = own.comparison.get("ecospa", target), own.comparison.get(other, target)
            if own.procedure != "fine-tuned" or ours is None or ours.target != target or theirs is None:
                continue
            effect = paired_difference(ours.values("perplexity"), theirs.values("perplexity"))
            if effect is not None and theirs.target in (None, target):
                found.append((effect.high, effect, own.model, ours.ids + theirs.ids))
        if not found:
            return needs(command)
        _, effect, model, ids = max(found, key=lambda entry: entry[0])
        kind, detail = decide(effect, 0.0, full_scale=tier == "paper")
        return Verdict(kind, detail, f"{model}: perplexity {difference(effect)}", effect.n, ids)

    return judge


def grows_when_cut(target: float, smaller: float) -> Judge:
    """Return the judge of "with fine-tuning, EcoSpa's perplexity at `smaller` is above that at `target`"."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        found = []
        for own in protocols(_of(records, FINETUNING)):
            cells = {cell.target: cell for cell in own.comparison.cells if cell.method == "ecospa"}
            if own.procedure != "fine-tuned" or target not in cells or smaller not in cells:
                continue
            large, small = cells[target], cells[smaller]
            effect = paired_difference(large.values("perplexity"), small.values("perplexity"))
            if effect is not None:
                found.append((effect.high, effect, own.model, large.ids + small.ids))
        if not found:
            return needs(f"python -m benchmarks run {FINETUNING} --tier {tier} --methods ecospa")
        _, effect, model, ids = max(found, key=lambda entry: entry[0])
        kind, detail = decide(effect, 0.0, full_scale=tier == "paper")
        return Verdict(kind, detail, f"{model}: perplexity {difference(effect)}", effect.n, ids)

    return judge


def faster_at_the_end(target: float) -> Judge:
    """Return the judge of "a training step of the shrunk model is faster than one of the dense model"."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        cell = compare(_of(records, TRAINING)).get("ecospa", target)
        effect = cell.interval("final_step_time_ratio") if cell is not None and cell.target == target else None
        if cell is None or effect is None:
            return needs(f"python -m benchmarks run {TRAINING} --tier {tier} --methods ecospa")
        kind, detail = decide(effect, 1.0, full_scale=tier == "paper")
        return Verdict(kind, detail, f"step time ratio {ratio(effect)}", effect.n, cell.ids)

    return judge


def against_dense(
    number: PublishedNumber,
    experiment: str,
    metric: str,
    what: str,
    *,
    as_ratio: bool,
    more: bool = False,
    at_scale: tuple[str, ...] = ("paper",),
) -> Judge:
    """Return the judge of a headline claim of EcoSpa against a dense model, at the scale of the paper.

    Args:
        number: claimed ratio or difference.
        experiment: whose records, of the methods ecospa and dense.
        metric: what is compared.
        what: what it takes to run, where there are no records.
        as_ratio: ours over theirs; else ours minus theirs.
        more: whether more is better.
        at_scale: tiers in which the experiment has the model of the claim, so that the claim can be reproduced there.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        cells = compare(_of(records, experiment)).cells
        ours, theirs = _only("ecospa", cells), _only("dense", cells)
        if ours is None or theirs is None:
            return needs(what)
        pair = paired_ratio if as_ratio else paired_difference
        effect = pair(ours.values(metric), theirs.values(metric))
        if effect is None:
            return needs(what)
        sign = -1 if more else 1
        kind, detail = decide(
            effect.mirrored() if more else effect,
            sign * (1.0 if as_ratio else 0.0),
            full_scale=tier in at_scale,
            published=sign * number.value,
        )
        shown = f"ratio {ratio(effect)}" if as_ratio else difference(effect)
        return Verdict(kind, detail, f"{metric.replace('_', ' ')} {shown}", effect.n, ours.ids + theirs.ids)

    return judge


def aligned_error_below(removal: str) -> Judge:
    """Return the judge of "aligned removal errs less than `removal`"; of all matrices and shares the worst decides."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        chosen = compare(_of(records, MISMATCH)).records
        worst = {record.seed: value for record in chosen if (value := _worst_ratio(record, removal)) is not None}
        if not worst:
            return needs(f"python -m benchmarks run {MISMATCH} --tier {tier}")
        effect = mean_interval(worst.values())
        kind, detail = decide(effect, 1.0, full_scale=tier == "paper")
        ids = tuple(record.id for record in chosen)
        return Verdict(kind, detail, f"largest ratio of errors {ratio(effect)}", effect.n, ids)

    return judge


def changes_when_cut(lower: str, higher: str) -> Judge:
    """Return the judge of "the metric `lower` is below `higher`" for a pre-trained model that is cut step by step."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        comparison = compare(_of(records, PRETRAINED))
        cell = _only("ecospa", comparison.cells)
        effect = None if cell is None else paired_difference(cell.values(lower), cell.values(higher))
        if cell is None or effect is None:
            return needs(f"python -m benchmarks run {PRETRAINED} --tier {tier}")
        kind, detail = decide(effect, 0.0, full_scale=tier == "paper")
        return Verdict(kind, detail, f"perplexity {difference(effect)}", effect.n, cell.ids)

    return judge


def error_curves(record: RunRecord) -> ErrorCurves:
    """Return {(matrix, removal): {removed share: relative error}} of a record of `mismatch_error`."""
    curves: ErrorCurves = defaultdict(dict)
    for curve in record.payload.get("curves", []):
        points = zip(curve["removed_share"], curve["relative_error"], strict=True)
        curves[curve["matrix"], curve["removal"]].update(points)
    return dict(curves)


def _worst_ratio(record: RunRecord, removal: str) -> float | None:
    curves = error_curves(record)
    ratios = [
        error / other[removed]
        for (matrix, kind), aligned in curves.items()
        if kind == "aligned" and (other := curves.get((matrix, removal)))
        for removed, error in aligned.items()
        # At 0 there is no error to compare, at 1 nothing is left whoever chose.
        if 0 < removed < 1 and other.get(removed, 0.0) > 0
    ]
    return max(ratios, default=None)


def _of(records: Sequence[RunRecord], experiment: str) -> list[RunRecord]:
    return [record for record in records if record.experiment == experiment]


def _only(method: str, cells: Sequence[Cell]) -> Cell | None:
    """Return the cell of a method with the smallest target: the claim is about the end."""
    own = [cell for cell in cells if cell.method == method]
    return min(own, key=lambda cell: cell.target or 0.0) if own else None
