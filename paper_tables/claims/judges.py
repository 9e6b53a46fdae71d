"""From records to the effect that a claim is about: who is compared, on which metric, paired by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from paper_tables.analysis.cells import Cell, compare, shape
from paper_tables.analysis.comparability import same_device, unequal
from paper_tables.analysis.fine_tuning import protocols
from paper_tables.analysis.formats import difference, ratio, share
from paper_tables.analysis.intervals import Interval, mean_interval, paired_difference, paired_ratio
from paper_tables.claims.published import PublishedNumber
from paper_tables.claims.verdicts import (
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    NOT_RUN,
    SEEDS_NEEDED,
    Judge,
    Verdict,
    decide,
    needs,
)
from results import RunRecord

TRAINING = "coupled_vs_uncoupled"
MISMATCH = "mismatch_error"
PRETRAINED = "pretrained_shrink"
LLAMA = "llama_pretraining"
FINETUNING = "llama_finetuning"
LLAMA_1B = (2048, 24)
"""Width and layers of the model that the paper's headlines are about."""
HALF = 0.5
"""Share of the block parameters at which the headlines are judged: LLaMA-1B with half of its parameters has 45 %."""
NEEDS_1B = "LLaMA-1B (24 layers of 2048)"

PHASES = ("prefill", "decode")

ErrorCurves = dict[tuple[str, str], dict[float, float]]


def beats(other: str, target: float, experiment: str = TRAINING) -> Judge:
    """Return the judge of "EcoSpa has a lower perplexity than `other` at `target`" in an experiment."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        comparison = compare(_of(records, experiment))
        ours, theirs = comparison.get("ecospa", target), comparison.get(other, target)
        command = f"python -m benchmarks run {experiment} --tier {tier} --methods ecospa {other}"
        if ours is None or ours.target != target or theirs is None or theirs.target not in (None, target):
            return needs(command)
        if other_training := unequal(ours, theirs):
            return needs(f"runs of equal training, not {other_training}: {command}")
        effect = paired_difference(ours.values("perplexity"), theirs.values("perplexity"))
        if effect is None:
            return needs(f"the same seeds of both methods: {command}")
        kind, detail = decide(effect, 0.0, full_scale=tier == "paper")
        return Verdict(kind, detail, f"perplexity {difference(effect)}", effect.n, ours.ids + theirs.ids)

    return judge


def on_largest_model(judge: Judge, experiment: str = LLAMA, name: str | None = None) -> Judge:
    """Return a judge that sees the largest model alone, where a tier has several sizes of one architecture.

    The claims are about LLaMA-1B, so at tier paper no other size stands in for it.

    Args:
        judge: who decides.
        experiment: whose records.
        name: of the model, where an experiment has several architectures.
    """

    def judge_largest(records: Sequence[RunRecord], tier: str) -> Verdict:
        own = [
            record
            for record in _of(records, experiment)
            if name is None or (record.config.get("model") or {}).get("name") == name
        ]
        largest = max((shape(record) for record in own), default=(0, 0))
        if own and tier == "paper" and largest != LLAMA_1B:
            return needs(f"{NEEDS_1B}: python -m benchmarks run {experiment} --tier {tier}")
        return judge([record for record in own if shape(record) == largest], tier)

    return judge_largest


def beats_fine_tuned(other: str, target: float) -> Judge:
    """Return the judge of "with fine-tuning, EcoSpa has a lower perplexity than `other` at `target`", every model.

    The models are judged apart; the one on which EcoSpa does worst decides.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        command = f"python -m benchmarks run {FINETUNING} --tier {tier} --methods ecospa {other}"
        found: list[_Judged] = []
        other_training = ""
        for own in protocols(_of(records, FINETUNING)):
            ours, theirs = own.comparison.get("ecospa", target), own.comparison.get(other, target)
            if own.procedure != "fine-tuned" or ours is None or ours.target != target or theirs is None:
                continue
            if differing := unequal(ours, theirs):
                other_training = f"runs of equal training, not {differing}: "
                continue
            effect = paired_difference(ours.values("perplexity"), theirs.values("perplexity"))
            if effect is not None and theirs.target in (None, target):
                found.append(_Judged.of(own.model, effect, tier, ours.ids + theirs.ids))
        return _worst(found) if found else needs(f"{other_training}{command}")

    return judge


def grows_when_cut(target: float, smaller: float) -> Judge:
    """Return the judge of "with fine-tuning, EcoSpa's perplexity at `smaller` is above that at `target`"."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        found: list[_Judged] = []
        for own in protocols(_of(records, FINETUNING)):
            cells = {cell.target: cell for cell in own.comparison.cells if cell.method == "ecospa"}
            if own.procedure != "fine-tuned" or target not in cells or smaller not in cells:
                continue
            large, small = cells[target], cells[smaller]
            effect = paired_difference(large.values("perplexity"), small.values("perplexity"))
            if effect is not None:
                found.append(_Judged.of(own.model, effect, tier, large.ids + small.ids))
        return (
            _worst(found) if found else needs(f"python -m benchmarks run {FINETUNING} --tier {tier} --methods ecospa")
        )

    return judge


@dataclass(frozen=True)
class _Judged:
    """One model of several: what it alone would decide."""

    model: str
    effect: Interval
    kind: str
    detail: str
    ids: tuple[str, ...]

    @classmethod
    def of(cls, model: str, effect: Interval, tier: str, ids: tuple[str, ...]) -> _Judged:
        """Decide a difference in perplexity."""
        return cls(model, effect, *decide(effect, 0.0, full_scale=tier == "paper"), ids)


def _worst(found: Sequence[_Judged]) -> Verdict:
    """Return the verdict on the model that comes out worst: a loss before no difference before the direction.

    The end of an interval would not do: the noisiest model has the highest. Models with too few seeds decide nothing
    as long as another has enough.
    """
    order = (NOT_REPRODUCED, NO_DIFFERENCE, NOT_RUN)
    enough = [entry for entry in found if entry.effect.n >= SEEDS_NEEDED] or list(found)
    worst = max(enough, key=lambda e: (-order.index(e.kind) if e.kind in order else -len(order), e.effect.mean))
    few = [f"{entry.model} (n={entry.effect.n})" for entry in found if entry not in enough]
    left_out = f"; left out, too few seeds: {', '.join(few)}" if few else ""
    text = f"{worst.model}: perplexity {difference(worst.effect)}{left_out}"
    return Verdict(worst.kind, worst.detail, text, worst.effect.n, worst.ids)


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
    target: float = HALF,
    at_scale: tuple[str, ...] = ("paper",),
    beside: tuple[tuple[str, str], ...] = (),
) -> Judge:
    """Return the judge of a headline claim of EcoSpa against a dense LLaMA-1B on the same device.

    Args:
        number: claimed ratio or difference.
        experiment: whose records, of the methods ecospa and dense.
        metric: what is compared.
        what: what it takes to run, where there are no records.
        as_ratio: ours over theirs; else ours minus theirs.
        target: share of the block parameters that EcoSpa keeps.
        at_scale: tiers in which a run of LLaMA-1B is the run of the claim, so that it can be reproduced there.
        beside: (text, metric) that the verdict tells, too, and that do not decide.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        comparison = compare(_of(records, experiment))
        ours, theirs = comparison.get("ecospa", target), comparison.get("dense", None)
        if ours is None or ours.target != target or theirs is None:
            return needs(what)
        if not ours.values(metric).keys() & theirs.values(metric).keys():
            return needs(what)
        if other_training := unequal(ours, theirs):
            return needs(f"runs of equal training, not {other_training}: {what}")
        pair = paired_ratio if as_ratio else paired_difference
        effect = pair(*same_device(ours, theirs, metric))
        if effect is None:
            return needs(f"the same device for both: {what}")
        full_scale = tier in at_scale and _shapes(ours, theirs) == {LLAMA_1B}
        kind, detail = decide(effect, 1.0 if as_ratio else 0.0, full_scale=full_scale, published=number.value)
        shown = f"ratio {ratio(effect)}" if as_ratio else difference(effect)
        text = f"{metric.replace('_', ' ')} {shown} at {share(target)} of the block parameters"
        others = [(said, pair(*same_device(ours, theirs, name))) for said, name in beside]
        told = [f"{said} {ratio(own) if as_ratio else difference(own)}" for said, own in others if own is not None]
        return Verdict(kind, detail, "; ".join((text, *told)), effect.n, ours.ids + theirs.ids)

    return judge


def infers_faster(number: PublishedNumber, experiment: str, model: str, what: str, target: float = HALF) -> Judge:
    """Return the judge of "the shrunk model infers faster than the dense one", in prefill and decode alike.

    Every run interleaved both models, so its `throughput_ratio` (shrunk / dense) needs no record of the dense model.
    Of the two phases, prefill and decode, both are needed and the slower one decides.

    Args:
        number: the claimed ratio.
        experiment: whose records, of the method ecospa.
        model: its name.
        what: what it takes to run, where there are no records.
        target: share of the block parameters that is kept.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        own = [r for r in _of(records, experiment) if (r.config.get("model") or {}).get("name") == model]
        cells = {phase: _speed_cell(own, phase, target) for phase in PHASES}
        found = {
            phase: (cell, effect)
            for phase, cell in cells.items()
            if cell is not None and (effect := cell.interval("throughput_ratio")) is not None
        }
        if len(found) < len(PHASES):
            return needs(what)
        slowest = min(found, key=lambda phase: found[phase][1].mean)
        cell, effect = found[slowest]
        full_scale = tier in ("gpu", "paper") and _shapes(cell) == {LLAMA_1B}
        kind, detail = decide(effect.mirrored(), -1.0, full_scale=full_scale, published=-number.value)
        text = ", ".join(f"{phase} {ratio(own_effect)}" for phase, (_, own_effect) in found.items())
        text = f"throughput ratio: {text}; {slowest} decides, at {share(target)} of the block parameters"
        return Verdict(kind, detail, text, effect.n, cell.ids)

    return judge


def _speed_cell(records: Sequence[RunRecord], phase: str, target: float) -> Cell | None:
    """Return EcoSpa's cell in one phase, on the largest model, in the setting that most was measured in."""
    own = [record for record in records if (record.config.get("protocol") or {}).get("phase") == phase]
    largest = max((shape(record) for record in own), default=(0, 0))
    cell = compare([record for record in own if shape(record) == largest]).get("ecospa", target)
    return cell if cell is not None and cell.target == target else None


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


def _shapes(*cells: Cell) -> set[tuple[int, int]]:
    return {shape(record) for cell in cells for record in cell.records}


def _only(method: str, cells: Sequence[Cell]) -> Cell | None:
    """Return the cell of a method with the smallest target: the claim is about the end."""
    own = [cell for cell in cells if cell.method == method]
    return min(own, key=lambda cell: cell.target or 0.0) if own else None
