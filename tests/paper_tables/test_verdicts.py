"""Every verdict that a claim can get, from records whose numbers are worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from paper_tables.analysis.intervals import Interval
from paper_tables.claims.judges import against_dense, aligned_error_below, faster_at_the_end
from paper_tables.claims.published import LLAMA_1B_MEMORY
from paper_tables.claims.quality_judges import beats, changes_when_cut
from paper_tables.claims.verdicts import (
    DIRECTION,
    KINDS,
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    SMALLER,
    UNDECIDED,
    UNSIZED,
    Verdict,
    decide,
)
from paper_tables.report.parts import css_class
from paper_tables.tables.claims import judged
from results import RunRecord
from tests.results.factory import make_record
from tests.results.regime_records import sized

MEMORY = against_dense(LLAMA_1B_MEMORY, "training_memory", "peak_memory", "a GPU", as_ratio=True, at_scale=("gpu",))


def runs(method: str, values: Sequence[float], metric: str = "perplexity", **changes: object) -> list[RunRecord]:
    start = 100 * sum(method.encode()) % 5000
    return [
        make_record(start + seed, {metric: value}, method=method, seed=seed, **changes)
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("effect", "full_scale", "published", "kind"),
    [
        (Interval(-1.0, 0.5, 2), True, None, NOT_RUN),
        (Interval(-1.0, 1.5, 3), True, None, UNDECIDED),
        (Interval(-1.0, 1.0, 3), True, None, UNDECIDED),
        (Interval(1.0, 0.5, 3), True, None, NOT_REPRODUCED),
        (Interval(1.0, 0.5, 3), False, None, NOT_REPRODUCED),
        (Interval(-1.0, 0.5, 3), False, None, DIRECTION),
        (Interval(-1.0, 0.5, 3), True, None, REPRODUCED),
        (Interval(-1.0, 0.5, 3), True, -1.2, REPRODUCED),
        (Interval(-3.0, 0.5, 3), True, -1.2, REPRODUCED),
        (Interval(-3.0, 1.7, 3), True, -1.2, REPRODUCED),  # wide, but all of it lies beyond
        (Interval(-3.0, 1.9, 3), True, -1.2, UNSIZED),
        (Interval(-1.3, 1.2, 3), True, -2.4, UNSIZED),  # noise that reaches the number
        (Interval(-1.3, 1.1, 3), True, -2.4, REPRODUCED),
        (Interval(-1.9, 0.2, 3), True, -2.4, SMALLER),
        (Interval(-1.0, 0.5, 3), True, -2.4, SMALLER),
        (Interval(-1.9, 0.2, 3), False, -2.4, DIRECTION),
        (Interval(-0.5, 1.5, 3), True, -2.4, NOT_REPRODUCED),  # ends at -2.0
        (Interval(-1.0, 1.5, 3), True, -2.4, UNDECIDED),
        (Interval(-0.5, 1.5, 3), False, -2.4, UNDECIDED),  # a smaller model may have a smaller effect
        (Interval(-0.1, 0.13, 3), False, -2.4, NO_DIFFERENCE),  # between -0.23 and +0.03, of 0.24
        (Interval(-0.1, 0.15, 3), False, -2.4, UNDECIDED),
        (Interval(0.1, 0.13, 3), True, -2.4, NO_DIFFERENCE),
        (Interval(-0.1, 0.05, 3), True, -2.4, NO_DIFFERENCE),  # clear of zero, and of no size
        (Interval(0.0, 0.0, 3), False, -2.4, NO_DIFFERENCE),
    ],
)
def test_the_interval_decides(effect: Interval, full_scale: bool, published: float | None, kind: str) -> None:
    assert decide(effect, 0.0, full_scale=full_scale, published=published).kind == kind


@pytest.mark.parametrize(("neutral", "published"), [(0.0, -2.4), (1.0, 0.5), (-1.0, -1.6)])
def test_noise_and_less_than_half_of_a_published_effect_are_never_reproduced(neutral: float, published: float) -> None:
    whole = published - neutral
    for part in (0.05, 0.25, 0.45, 0.499, 0.8, 1.0):
        for width in (0.01, 0.3, 0.49, 0.51, 2.0):
            effect = Interval(neutral + part * whole, abs(width * whole), 3)
            kind = decide(effect, neutral, full_scale=True, published=published).kind
            if part < 0.5 or width > 0.5 or part + width < 1:
                assert kind != REPRODUCED
            else:
                assert kind == REPRODUCED


def test_the_share_of_a_published_effect_is_told() -> None:
    assert decide(Interval(-1.8, 0.2, 4), 0.0, full_scale=True, published=-2.4).detail == (
        "75% of the published effect, n=4"
    )


@pytest.mark.parametrize(
    ("effect", "kind"),
    [
        (Interval(0.002, 0.007, 8), NO_DIFFERENCE),
        (Interval(-0.005, 0.004, 8), NO_DIFFERENCE),  # clear of zero, and too small to matter
        (Interval(0.002, 0.009, 8), UNDECIDED),
        (Interval(-0.012, 0.004, 8), DIRECTION),
        (Interval(0.012, 0.004, 8), NOT_REPRODUCED),
    ],
)
def test_equality_is_a_finding_and_not_the_lack_of_one(effect: Interval, kind: str) -> None:
    ruling = decide(effect, 0.0, full_scale=False, margin=0.01)
    assert ruling.kind == kind
    assert ruling.p is not None and (ruling.p < 0.05) == (kind != UNDECIDED)


@pytest.mark.parametrize(
    ("theirs", "tier", "text"),
    [
        ((51.0, 51.2, 51.1), "smoke", "direction holds at reduced scale (n=3)"),
        ((51.0, 51.2, 51.1), "paper", "reproduced (n=3)"),
        ((49.0, 49.1, 49.3), "smoke", "not reproduced (the opposite is measured at reduced scale, n=3)"),
        ((49.0, 51.0, 50.5), "paper", "cannot tell apart (n=3)"),
        ((50.0, 50.11, 50.2), "paper", "no difference (within ±0.01, n=3)"),
        ((51.0, 51.2), "paper", "not run (n too small: needs 3 seeds, has 2)"),
    ],
)
def test_ecospa_against_another_method(theirs: Sequence[float], tier: str, text: str) -> None:
    ours, other = runs("ecospa", (50.0, 50.1, 50.2), tier=tier), runs("uncoupled", theirs, tier=tier)
    found = beats("uncoupled", 0.5)([*ours, *other, *sized(4000, tier=tier)], tier)
    assert found.text == text
    assert found.n == len(theirs)
    assert set(found.records) == {record.id for record in [*ours, *other]}


def test_the_measured_difference_is_printed_and_losing_too() -> None:
    # in nats ln 4, ln 4 + 0.1, ln 4 + 0.2: mean 1.4863, s = 0.1, 4.3027 * 0.1 / sqrt(3) = 0.2484;
    # detectable (4.3027 + 1.0607) * 0.1 / sqrt(3) = 0.3097
    theirs = (1.0, 2.0, 3.0)
    ours = tuple(value * 4 * math.exp(0.1 * seed) for seed, value in enumerate(theirs))
    records = [*runs("ecospa", ours), *runs("small_dense", theirs), *runs("dense", (0.5, 1.0, 1.5), target=None)]
    mean = sum(left - right for left, right in zip(ours, theirs, strict=True)) / 3
    found = beats("small_dense", 0.5)(records, "smoke")
    assert found.measured == f"+1.4863 [+1.2379, +1.7347] nats (perplexity {mean:+.3g}); detectable 0.31"


def test_dense_is_the_control_of_every_target() -> None:
    records = [*runs("ecospa", (9.0, 9.1, 9.2), target=0.3), *sized(4000, target=0.3)]
    assert beats("dense", 0.3)(records, "smoke").kind == DIRECTION
    assert beats("dense", 0.5)(records, "smoke").kind == NOT_RUN


def test_what_is_missing_is_told_with_its_command() -> None:
    command = "needs python -m benchmarks run coupled_vs_uncoupled --tier cpu --methods ecospa magnitude"
    assert beats("magnitude", 0.5)([], "cpu").text == f"not run ({command})"
    other_target = [*runs("ecospa", (1.0,)), *runs("magnitude", (1.0,), target=0.3)]
    assert beats("magnitude", 0.5)(other_target, "cpu").detail == command
    other_seeds = [make_record(1, {"perplexity": 1.0}), make_record(2, {"perplexity": 1.0}, method="magnitude", seed=4)]
    assert "same seeds" in beats("magnitude", 0.5)(other_seeds, "cpu").detail


@pytest.mark.parametrize(
    ("ratios", "kind"),
    [((0.6, 0.61, 0.62), DIRECTION), ((1.2, 1.21, 1.22), NOT_REPRODUCED), ((0.9, 1.1, 1.0), UNDECIDED)],
)
def test_time_of_the_final_step(ratios: Sequence[float], kind: str) -> None:
    found = faster_at_the_end(0.5)(runs("ecospa", ratios, "final_step_time_ratio"), "smoke")
    assert (found.kind, found.n) == (kind, 3)
    assert faster_at_the_end(0.3)(runs("ecospa", ratios, "final_step_time_ratio"), "smoke").kind == NOT_RUN


@pytest.mark.parametrize(
    ("ours", "tier", "kind"),
    [
        ((45.0, 46.0, 47.0), "gpu", REPRODUCED),
        ((70.0, 71.0, 72.0), "gpu", SMALLER),
        ((45.0, 46.0, 47.0), "cpu", DIRECTION),
        ((120.0, 121.0, 122.0), "gpu", NOT_REPRODUCED),
    ],
)
def test_a_headline_ratio(ours: Sequence[float], tier: str, kind: str) -> None:
    common = {"experiment": "training_memory", "tier": tier, "model": {"width": 2048, "layers": 24}}
    records = [
        *runs("ecospa", ours, "peak_memory", **common),
        *runs("dense", (100.0, 100.0, 100.0), "peak_memory", target=None, **common),
    ]
    assert MEMORY(records, tier).kind == kind
    assert MEMORY(records[:3], tier).text == "not run (needs a GPU)"


def mismatch(aligned: Sequence[float], other: Sequence[float], seeds: int = 3) -> list[RunRecord]:
    def curve(removal: str, errors: Sequence[float], seed: int) -> dict[str, object]:
        points = {"removed_share": [0.0, 0.5, 1.0], "relative_error": [0.0, *(e + 0.001 * seed for e in errors)]}
        return {"matrix": "trained", "removal": removal, **points}

    return [
        make_record(
            seed,
            experiment="mismatch_error",
            method="index_removal",
            target=None,
            seed=seed,
            payload={"curves": [curve("aligned", aligned, seed), curve("random", other, 0)]},
        )
        for seed in range(seeds)
    ]


def test_the_worst_share_between_nothing_and_everything_decides() -> None:
    # 0.4 / 0.8 at half; at a share of 1 both lose all, whatever they chose
    found = aligned_error_below("random")(mismatch((0.4, 1.0), (0.8, 0.9)), "smoke")
    assert found.kind == DIRECTION
    assert found.measured.startswith("largest ratio of errors 0.50 [")
    assert aligned_error_below("random")(mismatch((0.9, 1.0), (0.8, 1.0)), "smoke").kind == NOT_REPRODUCED
    assert aligned_error_below("random")(mismatch((0.4, 1.0), (0.8, 1.0), seeds=1), "smoke").kind == NOT_RUN
    assert aligned_error_below("misaligned")(mismatch((0.4, 1.0), (0.8, 1.0)), "smoke").kind == NOT_RUN


def test_a_pre_trained_model() -> None:
    records = [
        make_record(
            seed,
            {"perplexity_cut": 20.0, "perplexity_recovered": 8.0 + 0.1 * seed},
            experiment="pretrained_shrink",
            seed=seed,
        )
        for seed in range(3)
    ]
    assert changes_when_cut("perplexity_recovered", "perplexity_cut")(records, "cpu").kind == DIRECTION
    assert changes_when_cut("perplexity_cut", "perplexity_recovered")(records, "cpu").kind == NOT_REPRODUCED
    assert changes_when_cut("perplexity_before", "perplexity_cut")(records, "cpu").kind == NOT_RUN


def test_without_records_every_claim_says_what_it_needs() -> None:
    found = judged([], "cpu")
    assert [claim.headline for claim, _ in found[:5]] == [True] * 4 + [False]
    assert len({claim.statement for claim, _ in found}) == len(found) >= 20
    for claim, verdict in found:
        assert verdict.kind == NOT_RUN and verdict.text.startswith("not run (needs ")
        assert verdict.n == 0 and verdict.records == () and verdict.measured == ""
        assert claim.source and claim.published


def test_a_verdict_reads_as_one_line() -> None:
    assert Verdict(REPRODUCED).text == "reproduced"
    assert Verdict(NO_DIFFERENCE, "n=3").text == "no difference (n=3)"
    assert len(set(KINDS)) == len(KINDS) == len(set(map(css_class, KINDS)))
