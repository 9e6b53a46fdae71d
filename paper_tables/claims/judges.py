"""Judges of claims about time, memory and error: who is compared, on which metric, in which setting, paired by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from paper_tables.analysis.cells import Cell, compare, shape
from paper_tables.analysis.comparability import DIRTY, flaw, same_device, unequal
from paper_tables.analysis.formats import difference, ratio, share
from paper_tables.analysis.intervals import Interval, mean_interval, paired_difference, paired_ratio
from paper_tables.analysis.speed import ALIGNED, against_aligned
from paper_tables.claims.published import PublishedNumber
from paper_tables.claims.quality_judges import LLAMA_1B, TRAINING
from paper_tables.claims.verdicts import Judge, Verdict, needs, ruled
from results import RunRecord

MISMATCH = "mismatch_error"
HALF = 0.5
"""Share of the block parameters at which the headlines are judged: LLaMA-1B with half of its parameters has 45 %."""

PHASES = ("prefill", "decode")
PLAIN, COMPILED = "plain", "compiled"


@dataclass(frozen=True)
class Setting:
    """Setting in which a number is judged: sequences at a time, tokens of each, and the mode or budget of the run."""

    batch: int
    sequence: int
    mode: str = PLAIN
    budget: float | None = None

    @property
    def text(self) -> str:
        """Return the setting as printed: "batch 8, 96 tokens"."""
        return f"batch {self.batch}, {self.sequence} tokens"

    def holds(self, record: RunRecord) -> bool:
        """Return whether a run was measured in this setting."""
        protocol = record.config.get("protocol") or {}
        measured = tuple(protocol.get(name) for name in ("batch", "sequence", "budget"))
        return (*measured, protocol.get("mode", PLAIN)) == (self.batch, self.sequence, self.budget, self.mode)


Settings = Mapping[str, Setting]
"""The setting of a claim by tier: a laptop has no room for the batches of a GPU."""

ErrorCurves = dict[tuple[str, str], dict[float, float]]


def faster_at_the_end(target: float) -> Judge:
    """Return the judge of "a training step of the shrunk model is faster than one of the dense model"."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        cell = compare(_of(records, TRAINING)).get("ecospa", target)
        effect = cell.interval("final_step_time_ratio") if cell is not None and cell.target == target else None
        if cell is None or effect is None:
            return needs(f"python -m benchmarks run {TRAINING} --tier {tier} --methods ecospa")
        text = f"step time ratio {ratio(effect)}"
        full_scale = tier == "paper"
        return ruled(effect, 1.0, text, cell.ids, experiment=TRAINING, full_scale=full_scale, flaw=flaw(cell))

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
    settings: Settings | None = None,
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
        settings: in which it is judged, where an experiment measures in several.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        setting = None if settings is None else settings.get(tier)
        own = [record for record in _of(records, experiment) if setting is None or setting.holds(record)]
        comparison = compare(own)
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
        shown = f"ratio {ratio(effect)}" if as_ratio else difference(effect)
        text = f"{metric.replace('_', ' ')} {shown} at {_where(target, setting)}"
        others = [(said, pair(*same_device(ours, theirs, name))) for said, name in beside]
        told = [f"{said} {ratio(own) if as_ratio else difference(own)}" for said, own in others if own is not None]
        return ruled(
            effect,
            1.0 if as_ratio else 0.0,
            "; ".join((text, *told)),
            ours.ids + theirs.ids,
            experiment=experiment,
            full_scale=tier in at_scale and _shapes(ours, theirs) == {LLAMA_1B},
            published=number.value,
            flaw=flaw(ours, theirs),
        )

    return judge


def infers_faster(
    number: PublishedNumber,
    experiment: str,
    model: str,
    what: str,
    settings: Settings,
    target: float = HALF,
    aligned: bool = False,
) -> Judge:
    """Return the judge of "the shrunk model infers faster than the dense one", in prefill and decode alike.

    Every run interleaved both models, so its `throughput_ratio` (shrunk / dense) needs no record of the dense model.
    Of the two phases, prefill and decode, both are needed and the slower one decides.

    Args:
        number: the claimed ratio.
        experiment: whose records, of the method ecospa.
        model: its name.
        what: what it takes to run, where there are no records.
        settings: in which it is judged.
        target: share of the block parameters that is kept.
        aligned: compare with the dense model at aligned widths, whose runs interleaved it with the dense one, too.
    """
    against = " to aligned dense" if aligned else ""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        setting = settings.get(tier)
        own = [r for r in _of(records, experiment) if (r.config.get("model") or {}).get("name") == model]
        own = [record for record in own if setting is not None and _is_judged(record, setting)]
        cells = {phase: _speed_cells(own, phase, target) for phase in PHASES}
        found = {
            phase: (cell, effect)
            for phase, (cell, control) in cells.items()
            if cell is not None and (effect := _faster(cell, control, "throughput_ratio", aligned)) is not None
        }
        if len(found) < len(PHASES):
            return needs(what)
        slowest = min(found, key=lambda phase: found[phase][1].mean)
        cell, effect = found[slowest]
        text = ", ".join(f"{phase} {ratio(own_effect)}" for phase, (_, own_effect) in found.items())
        return ruled(
            effect.mirrored(),
            -1.0,
            f"throughput ratio{against}: {text}; {slowest} decides, at {_where(target, setting)}",
            cell.ids + _ids_of(cells[slowest][1], aligned),
            experiment=experiment,
            full_scale=tier in ("gpu", "paper") and _shapes(cell) == {LLAMA_1B},
            published=-number.value,
            flaw=flaw(cell),
        )

    return judge


def _where(target: float, setting: Setting | None) -> str:
    return f"{share(target)} of the block parameters" + ("" if setting is None else f", {setting.text}")


def steps_faster_than_aligned(
    number: PublishedNumber, experiment: str, model: str, what: str, settings: Settings, target: float = HALF
) -> Judge:
    """Return the judge of "a training step of the shrunk model is faster than one of the aligned dense model".

    Args:
        number: the claimed ratio of times.
        experiment: whose records, of the methods ecospa and dense_aligned.
        model: its name.
        what: what it takes to run, where there are no records.
        settings: in which it is judged.
        target: share of the block parameters that is kept.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        setting = settings.get(tier)
        own = [r for r in _of(records, experiment) if (r.config.get("model") or {}).get("name") == model]
        own = [record for record in own if setting is not None and setting.holds(record)]
        cell, control = _speed_cells(own, "training", target)
        effect = None if cell is None else _faster(cell, control, "step_time_ratio", aligned=True)
        if cell is None or effect is None:
            return needs(what)
        return ruled(
            effect,
            1.0,
            f"time of a step / aligned dense {ratio(effect)} at {_where(target, setting)}",
            cell.ids + _ids_of(control, True),
            experiment=experiment,
            full_scale=tier in ("gpu", "paper") and _shapes(cell) == {LLAMA_1B},
            published=number.value,
            flaw=flaw(cell),
        )

    return judge


def _is_judged(record: RunRecord, setting: Setting) -> bool:
    """Return whether a run is in the setting: a prefill in its mode, a decode in its mode or compiled."""
    decodes = (record.config.get("protocol") or {}).get("phase") == "decode"
    return setting.holds(record) or (decodes and replace(setting, mode=COMPILED).holds(record))


def _faster(cell: Cell, control: Cell | None, metric: str, aligned: bool) -> Interval | None:
    """Return a ratio to the dense model, or to the aligned dense one."""
    return against_aligned(cell, control, metric) if aligned else cell.interval(metric)


def _ids_of(control: Cell | None, wanted: bool) -> tuple[str, ...]:
    return control.ids if wanted and control is not None else ()


def _speed_cells(records: Sequence[RunRecord], phase: str, target: float) -> tuple[Cell | None, Cell | None]:
    """Return EcoSpa's cell in one phase on the largest model, and that of the aligned dense model.

    Of runs in several modes the compiled ones are meant: an eager decode waits for launches, whatever the model's size.
    """
    own = [record for record in records if (record.config.get("protocol") or {}).get("phase") == phase]
    compiled = [record for record in own if record.config["protocol"].get("mode") == COMPILED]
    own = compiled if any(_is_of(record, target) for record in compiled) else [r for r in own if r not in compiled]
    largest = max((shape(record) for record in own), default=(0, 0))
    comparison = compare([record for record in own if shape(record) == largest])
    cell = comparison.get("ecospa", target)
    return cell if cell is not None and cell.target == target else None, comparison.get(ALIGNED, None)


def _is_of(record: RunRecord, target: float) -> bool:
    return record.method == "ecospa" and record.config.get("target") == target


def aligned_error_below(removal: str) -> Judge:
    """Return the judge of "aligned removal errs less than `removal`"; of all matrices and shares the worst decides."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        chosen = compare(_of(records, MISMATCH)).records
        worst = {record.seed: value for record in chosen if (value := _worst_ratio(record, removal)) is not None}
        if not worst:
            return needs(f"python -m benchmarks run {MISMATCH} --tier {tier}")
        effect = mean_interval(worst.values())
        return ruled(
            effect,
            1.0,
            f"largest ratio of errors {ratio(effect)}",
            tuple(record.id for record in chosen),
            experiment=MISMATCH,
            full_scale=tier == "paper",
            flaw=DIRTY if any(record.dirty for record in chosen) else "",
        )

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
