"""The answer in five sentences: what the verdicts say, in their words, and on the first screen and the last lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paper_tables import terminal_table
from paper_tables.claims.answer import SELECTION, SHAPE, brief, sentences
from paper_tables.claims.thesis import COMPARISONS, statement
from paper_tables.claims.verdicts import (
    CANNOT_DECIDE,
    DIRECTION,
    KINDS,
    MEASURED,
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    NOT_RUN,
    UNDECIDED,
    Claim,
    Verdict,
)
from results import Store


def judged(kinds: dict[str, tuple[str, str]], target: float = 0.3, n: int = 8) -> list[tuple[Claim, Verdict]]:
    """Claims of the thesis at one target: method -> (kind, effect in nats)."""
    return [
        (Claim(statement(other, target), "own", "", False, lambda records, tier: Verdict(NOT_RUN)),
         Verdict(kind, "", f"{effect} [-1.0, +1.0] nats (perplexity +1)", n))
        for other, (kind, effect) in kinds.items()
    ]  # fmt: skip


def headline(name: str, published: str, kind: str, measured: str) -> tuple[Claim, Verdict]:
    return Claim(name, "paper", published, True, lambda records, tier: Verdict(NOT_RUN)), Verdict(kind, "", measured, 3)


def test_every_comparison_of_the_answer_is_a_claim() -> None:
    known = {other for _, other, _, _ in COMPARISONS}
    assert {other for other, _ in (*SELECTION, *SHAPE)} <= known


def test_the_first_sentences_group_what_was_compared_by_how_it_ended() -> None:
    found = judged(
        {
            "random_pairs": (DIRECTION, "-0.0600"),
            "uniform_pairs": (UNDECIDED, "-0.0100"),
            "small_dense": (DIRECTION, "-0.0400"),
            "small_dense_equal_flops": (NOT_REPRODUCED, "+0.0500"),
            "final_shape": (NO_DIFFERENCE, "+0.0010"),
            "final_shape_equal_flops": (CANNOT_DECIDE, "+0.0900"),
        }
    )
    choice, shape, *_ = sentences(found, "cpu")
    assert choice == (
        "Choice of pairs, 30% of the blocks kept: EcoSpa beats random pairs (-0.0600 nats) and a small dense model at "
        "equal steps (-0.0400 nats); cannot be told from uniform pairs (-0.0100 nats); loses to one at equal training "
        "FLOPs (+0.0500 nats)."
    )
    assert "is level with a fresh model in its final shape at equal steps (+0.0010 nats)" in shape
    assert "is not to be compared yet with one at equal training FLOPs (+0.0900 nats)" in shape
    assert "was not run against one in the shape of another seed" in shape


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != MEASURED])
def test_every_kind_of_verdict_has_a_verb(kind: str) -> None:
    assert sentences(judged({"random_pairs": (kind, "-0.1000")}), "cpu")[0].count("random pairs (-0.1000 nats)") == 1


def test_the_target_is_that_with_the_most_seeds_behind_it() -> None:
    both = [
        *judged({"random_pairs": (DIRECTION, "-0.01")}, 0.5, n=8),
        *judged({"random_pairs": (DIRECTION, "-0.02")}, 0.3, n=3),
    ]
    assert sentences(both, "cpu")[0].startswith("Choice of pairs, 50% of the blocks kept: EcoSpa beats random")
    assert sentences([], "cpu")[0].startswith("Choice of pairs, 30% of the blocks kept: EcoSpa was not run against")


def test_memory_and_time_are_told_with_the_published_number_and_the_gaps_are_counted() -> None:
    found = [
        headline("LLaMA-1B trains in half the GPU memory", "memory / dense 0.5", NO_DIFFERENCE,
                 "peak memory ratio 1.00 [1.00, 1.00] at 50% of the block parameters, batch 16, 128 tokens; mean 0.83"),
        headline("LLaMA-1B trains in 21% less time", "training time / dense 0.79", MEASURED,
                 "training seconds ratio 0.80 [0.79, 0.81] at 50% of the block parameters; detectable 0.05"),
        headline("GPT-2, 2.2 times smaller", "perplexity difference -2.4", UNDECIDED, "+0.4 nats"),
        headline("The shrunk model infers 1.6 times faster", "inference speed / dense 1.6", NOT_RUN, ""),
    ]  # fmt: skip
    _, _, memory, time, unknown = sentences(found, "cpu")
    assert memory == "Memory: peak memory ratio 1.00 [1.00, 1.00]; mean 0.83 (published 0.5: no difference)."
    assert time == (
        "Time: training seconds ratio 0.80 [0.79, 0.81] (published 0.79: mechanical); nothing measured "
        "(published 1.6: not run)."
    )
    assert "of 4 claims 1 were not run, 0 cannot be decided" in unknown and "1 are too close to tell" in unknown
    assert "paper's sizes" in unknown and "paper's sizes" not in sentences(found, "paper")[-1]


def test_a_brief_effect_keeps_its_number_and_its_interval() -> None:
    long = (
        "throughput ratio: prefill 1.66 [1.64, 1.68], decode 1.74 [1.60, 1.89]; prefill decides, at 50% of the block "
    )
    assert brief(f"{long}parameters, batch 8, 96 tokens; detectable 0.2") == long.partition("; prefill")[0]


def test_the_last_ten_lines_are_the_answer(store: Store) -> None:
    lines = terminal_table("smoke", store).splitlines()[-10:]
    starts = [line.partition(":")[0].partition(",")[0] for line in lines if not line.startswith("  ")]
    assert starts[-5:] == ["Choice of pairs", "Shape or way there", "Memory", "Time", "Not known"]
    assert all(len(line) <= 120 for line in lines)
    assert "Not run (" in terminal_table("smoke", store)


def test_the_first_screen_is_the_answer_the_headlines_and_one_figure(rendered_store: Path) -> None:
    page = (rendered_store / "report.html").read_text(encoding="utf-8")
    first = page.partition('id="answer"')[2].partition("</section>")[0]
    assert first.count("<li>") >= 5
    assert re.findall(r"<strong>([^,:]+)", first)[:5] == [
        "Choice of pairs", "Shape or way there", "Memory", "Time", "Not known",
    ]  # fmt: skip
    assert first.count('data-name="Verdict"') == 4 and first.index("<strong>") < first.index("headlines")
    assert page.index('id="answer"') < page.index('id="limits"') < page.index('id="thesis"')
    assert page.count('id="figure-loss_against_cost"') <= 1
