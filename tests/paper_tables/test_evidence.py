"""Evidence that cannot carry a verdict: untold code, a length at which size does not matter, one claim of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from paper_tables.analysis.cells import compare
from paper_tables.analysis.comparability import flaw
from paper_tables.analysis.precondition import told, unmet
from paper_tables.claims.multiplicity import corrected, holm, shown
from paper_tables.claims.quality_judges import beats, on_largest_model
from paper_tables.claims.statements import claims
from paper_tables.claims.thesis import COMPARISONS, TARGETS, mechanical_claims, thesis_claims
from paper_tables.claims.verdicts import (
    CANNOT_DECIDE,
    DIRECTION,
    MEASURED,
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    NOT_RUN,
    UNDECIDED,
    Claim,
    Verdict,
)
from paper_tables.tables import claims as claims_table
from paper_tables.tables import controls
from results import PlanEvent, RunRecord
from tests.results.factory import make_record
from tests.results.regime_records import sized

OURS, THEIRS = (15.0, 15.1, 15.2), (16.0, 16.2, 16.1)
OTHER_COMMIT = "f" * 40


def runs(first: int, values: Sequence[float], method: str = "ecospa", **changes: Any) -> list[RunRecord]:
    return [
        make_record(first + seed, {"perplexity": value}, method=method, seed=seed, **changes)
        for seed, value in enumerate(values)
    ]


def judged(theirs: list[RunRecord], ours: list[RunRecord] | None = None, matters: bool = True) -> Verdict:
    mine = runs(0, OURS) if ours is None else ours
    return beats("random_pairs", 0.5)([*mine, *theirs, *sized(500, matters=matters)], "cpu")


def test_a_clean_comparison_of_one_code_decides() -> None:
    assert judged(runs(10, THEIRS, "random_pairs")).kind == DIRECTION


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        ({"dirty": True}, "dirty"),
        ({"commit": OTHER_COMMIT}, "mixed code"),
        ({"commit": OTHER_COMMIT, "dirty": True}, "dirty, mixed code"),
        ({"versions": {"python": "3.11.7", "code": "00ff"}}, "mixed code"),
    ],
)
def test_dirty_and_mixed_records_are_flagged_and_carry_no_verdict(theirs: dict[str, Any], text: str) -> None:
    found = judged(runs(10, THEIRS, "random_pairs", **theirs))
    assert found.text == f"cannot decide here ({text}, n=3)"
    assert found.measured.startswith("-0.0") and found.p is None and len(found.records) == 6


def test_one_flagged_seed_is_enough_and_one_that_is_not_compared_is_none() -> None:
    one = [*runs(10, THEIRS[:2], "random_pairs"), *runs(20, (16.1,), "random_pairs", dirty=True)]
    assert judged([*one[:2], make_record(12, {"perplexity": 16.1}, method="random_pairs", seed=2)]).kind == DIRECTION
    third = make_record(13, {"perplexity": 16.1}, method="random_pairs", seed=2, dirty=True)
    assert judged([*one[:2], third]).detail == "dirty, n=3"
    alone = make_record(14, {"perplexity": 16.1}, method="random_pairs", seed=7, dirty=True, commit=OTHER_COMMIT)
    assert judged([*runs(10, THEIRS, "random_pairs"), alone]).kind == DIRECTION


def test_one_code_at_two_commits_is_one_code() -> None:
    digest = {"versions": {"python": "3.11.7", "code": "00ff"}}
    mine, theirs = runs(0, OURS, **digest), runs(10, THEIRS, "random_pairs", commit=OTHER_COMMIT, **digest)
    assert judged(theirs, mine).kind == DIRECTION
    # every seed is compared within one code, whatever the other seeds ran on
    mine = [*runs(0, OURS[:2]), make_record(3, {"perplexity": 15.2}, seed=2, commit=OTHER_COMMIT)]
    theirs = runs(10, THEIRS, "random_pairs")
    last = make_record(19, {"perplexity": 16.1}, method="random_pairs", seed=2, commit=OTHER_COMMIT)
    assert judged([*theirs[:2], last], mine).kind == DIRECTION
    assert judged(theirs, mine).detail == "mixed code, n=3"


def test_what_one_process_measured_can_be_dirty_and_not_mixed() -> None:
    (cell,) = compare([*runs(0, OURS[:2]), make_record(3, {}, seed=2, commit=OTHER_COMMIT)]).cells
    assert flaw(cell) == ""
    (cell,) = compare(runs(0, OURS, dirty=True)).cells
    assert flaw(cell) == "dirty"


def test_nothing_is_decided_where_size_does_not_matter_yet() -> None:
    found = judged(runs(10, THEIRS, "random_pairs"), matters=False)
    assert found.kind == CANNOT_DECIDE and found.p is None
    # ln(10 / 9.9), ln(10.1 / 10.3), ln(10.2 / 10.2)
    assert found.detail == "size does not matter yet: dense minus small dense -0.0032 [-0.0407, +0.0343] nats, n=3"
    assert found.measured.startswith("-0.06")


def test_the_precondition_tells_how_long_the_training_was() -> None:
    history = (PlanEvent(0, 2_000, 1_000, {}),)  # 200 steps of 8 * 64 tokens on 1,000 block parameters
    comparison = compare(sized(0, matters=False, plan_history=history))
    assert unmet(comparison, 0.5).endswith("nats, 102 tokens per block parameter")
    assert told(comparison, 0.5).startswith("At 50%: dense minus small dense -0.0032 [")
    assert told(comparison, 0.5).endswith("102 tokens per block parameter; nothing is decided at this size.")
    assert told(compare(sized(0)), 0.5).endswith("nats; comparisons at this size count.")
    assert unmet(compare(sized(0)), 0.5) == "" and told(comparison, 0.3) == ""


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([], "no dense and small dense model at 50% to show that size matters"),
        (sized(0)[:3], "no dense and small dense model at 50% to show that size matters"),
        (sized(0, target=0.3), "no dense and small dense model at 50% to show that size matters"),
        (sized(0, seeds=2), "dense minus small dense needs 3 seeds"),
        (sized(0, dirty=True), "dense and small dense model: dirty"),
        ([*sized(0)[:3], *sized(50, training={"steps": 9, "batch_size": 8})[3:]],
         "dense and small dense model: steps 9 against 200"),
    ],
)  # fmt: skip
def test_a_missing_precondition_is_none(records: list[RunRecord], text: str) -> None:
    assert unmet(compare(records), 0.5) == text


def test_the_precondition_is_one_of_each_size() -> None:
    records = [*sized(0), *sized(50, matters=False, target=0.3, whole=False)]
    comparison = compare(records)
    assert unmet(comparison, 0.5) == "" and unmet(comparison, 0.3).startswith("size does not matter yet")
    notes = controls.notes([*records, *runs(100, OURS)])
    assert [note[:7] for note in notes] == ["At 50%:", "At 30%:"]


def test_holm_by_hand() -> None:
    # 3 * 0.01, then 2 * 0.02, then the larger of 0.04 and 1 * 0.03
    assert holm({"a": 0.02, "b": 0.01, "c": 0.03}) == pytest.approx({"b": 0.03, "a": 0.04, "c": 0.04})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0} and holm({}) == {}
    assert [shown(p) for p in (0.0004, 0.0123, 1.0)] == ["p<0.001", "p=0.012", "p=1"]


def verdict(kind: str, p: float | None, name: str, experiment: str = "x") -> Verdict:
    return Verdict(kind, "n=3", "measured", 3, (name,), experiment=experiment, p=p)


def claim(name: str) -> Claim:
    return Claim(name, "source", "less", False, lambda records, tier: verdict(NOT_RUN, None, name))


def test_of_many_claims_one_by_chance_is_taken_back() -> None:
    alone = [(claim("a"), verdict(DIRECTION, 0.04, "a"))]
    assert corrected(alone)[0][1].text == "direction holds at reduced scale (n=3, Holm p=0.04 of 1)"
    others = [(claim(name), verdict(UNDECIDED, 0.5, name)) for name in "bcd"]
    found = [own for _, own in corrected([*alone, *others])]
    assert found[0].text == ("cannot tell apart (alone: direction holds at reduced scale, n=3, Holm p=0.16 of 4)")
    assert {own.kind for own in found} == {UNDECIDED}
    elsewhere = [(claim(name), verdict(UNDECIDED, 0.5, name, "y")) for name in "bcd"]
    assert corrected([*alone, *elsewhere])[0][1].kind == DIRECTION


@pytest.mark.parametrize("kind", [DIRECTION, NOT_REPRODUCED, NO_DIFFERENCE])
def test_a_win_a_loss_and_equality_are_corrected_alike(kind: str) -> None:
    pair = [(claim("a"), verdict(kind, 0.03, "a")), (claim("b"), verdict(UNDECIDED, 0.5, "b"))]
    assert corrected(pair)[0][1].kind == UNDECIDED
    pair[0] = (claim("a"), verdict(kind, 0.02, "a"))
    assert corrected(pair)[0][1].kind == kind


def test_what_was_not_tested_does_not_count_and_what_stands_twice_counts_once() -> None:
    untested = [(claim(name), verdict(CANNOT_DECIDE, None, name)) for name in "bcd"]
    own = verdict(DIRECTION, 0.04, "a")
    headline = Verdict(NOT_RUN, "needs a GPU", controls=(("the same", own),))
    found = corrected([(claim("a"), own), (claim("headline"), headline), *untested])
    assert found[0][1].detail == found[1][1].controls[0][1].detail == "n=3, Holm p=0.04 of 1"
    assert found[2][1] == untested[0][1]


def test_two_claims_of_one_effect_are_two() -> None:
    own = verdict(DIRECTION, 0.03, "a")
    found = corrected([(claim("a"), own), (claim("b"), own)])
    assert [own.detail for _, own in found] == ["alone: direction holds at reduced scale, n=3, Holm p=0.06 of 2"] * 2


def test_the_thesis_has_a_claim_for_every_control_at_both_sizes() -> None:
    made = thesis_claims()
    assert len(made) == len(COMPARISONS) * len(TARGETS) and {claim.part for claim in made} == {
        "alignment", "joint importance", "gradual", "allocation", "choice of indices", "the way there vs. the shape",
        "size alone", "structures vs. masks",
    }  # fmt: skip
    commands = {claim.judge([], "cpu").detail.rpartition(" ")[2] for claim in made}
    assert {"final_shape", "final_shape_other_seed", "final_shape_equal_flops", "small_dense_equal_flops"} <= commands
    assert {"dense_average_size", "random_indices", "uniform_pairs", "ecospa_at_start", "ecospa_at_end"} <= commands


def test_mechanical_facts_are_no_verdicts_and_stand_last() -> None:
    ratios = [make_record(seed, {"final_step_time_ratio": 0.6 + 0.01 * seed}, seed=seed) for seed in range(3)]
    half = mechanical_claims()[0]
    assert half.judge(ratios, "cpu").kind == DIRECTION
    found = half.verdict(ratios, "cpu")
    assert found.text == "measured (n=3)" and found.p is None and found.measured.startswith("step time ratio 0.61 [")
    assert half.verdict(ratios, "paper").kind == MEASURED
    assert half.verdict([], "cpu").kind == NOT_RUN
    dirty = [make_record(9 + r.seed, r.metrics, seed=r.seed, dirty=True) for r in ratios]
    assert half.verdict(dirty, "cpu").text == "cannot decide here (dirty, n=3)"
    rows = list(claims_table.build(ratios)["Claim"])
    mechanical = {claim.statement for claim in claims() if claim.mechanical}
    assert set(rows[-len(mechanical) :]) == mechanical and len(mechanical) == 4


def test_a_smaller_model_on_enough_text_stands_for_a_larger_one_that_was_not() -> None:
    def llamas(first: int, width: int, blocks: int, layers: int = 4) -> list[RunRecord]:
        common: dict[str, Any] = {
            "experiment": "llama_pretraining",
            "model": {"width": width, "layers": layers},
            "plan_history": (PlanEvent(0, 2 * blocks, blocks, {}),),
        }
        theirs = runs(first + 10, THEIRS, "uniform_pairs", **common)
        return [*runs(first, OURS, **common), *theirs, *sized(first + 20, **common)]

    large, small = llamas(0, 256, 100_000), llamas(100, 64, 5_000)  # 200 steps of 512 tokens: 1 and 20 for each
    judge = on_largest_model(beats("uniform_pairs", 0.5, "llama_pretraining"))
    found = judge([*large, *small], "cpu")
    assert set(found.records) == {record.id for record in small[:6]}
    assert set(judge(large, "cpu").records) == {record.id for record in large[:6]}
    own = llamas(200, 2048, 100_000, layers=24)  # the model of the claims, published with 13 tokens for each
    assert set(judge([*own, *small], "cpu").records) == {record.id for record in own[:6]}
