"""Metrics of the tasks of encoders, against their formulas and by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from benchmarks import metrics
from benchmarks.metrics.glue import accuracy, f1, matthews, pearson, spearman
from benchmarks.metrics.squad import answer_metrics, exact_match, normalised, word_f1
from results.record import Metric


def test_looking_for_metrics_loads_no_library_that_counts() -> None:
    """The folder is scanned in every run, and the memory of a run may be what is measured."""
    code = "import sys; from benchmarks import metrics; metrics.measures(); print({'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_two_files_do_not_measure_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"parameters": Metric(1.0, "parameters", False)}
    monkeypatch.setattr(metrics, "measures", lambda: {"first": lambda *of: one, "second": lambda *of: one})
    with pytest.raises(ValueError, match=r"metrics/second\.py measures 'parameters', which another file measures"):
        metrics.model_metrics(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_judged_by_their_formulas(classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    true = generator.integers(0, classes, 60)
    predicted = np.where(generator.random(60) < 0.5, true, generator.integers(0, classes, 60))
    assert accuracy(predicted, true) == pytest.approx((predicted == true).mean())
    # Matthews' correlation is Pearson's of the indicators, summed over classes
    said, are = np.eye(classes)[predicted], np.eye(classes)[true]
    said, are = said - said.mean(0), are - are.mean(0)
    assert matthews(predicted, true) == pytest.approx((said * are).sum() / np.sqrt((said**2).sum() * (are**2).sum()))
    hits, errors = ((predicted == 1) & (true == 1)).sum(), ((predicted == 1) != (true == 1)).sum()
    assert f1(predicted, true) == pytest.approx(2 * hits / (2 * hits + errors))


def test_whoever_says_the_same_of_everything_has_no_correlation() -> None:
    true = np.array([0, 1, 1, 0, 1])
    assert matthews(np.ones(5, dtype=int), true) == 0.0
    assert accuracy(np.ones(5, dtype=int), true) == 0.6
    assert f1(np.ones(5, dtype=int), true) == pytest.approx(0.75)
    assert f1(np.zeros(5, dtype=int), true) == f1(np.zeros(5, dtype=int), np.zeros(5, dtype=int)) == 0.0
    assert pearson([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]) == spearman([1.0, 2.0], [0.0, 0.0]) == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_correlations_are_those_of_their_formulas(seed: int) -> None:
    generator = np.random.default_rng(seed)
    one = np.round(generator.normal(size=50), 1)  # rounded, so that there are ties
    other = np.round(one + generator.normal(size=50), 1)
    assert pearson(one, other) == pytest.approx(np.corrcoef(one, other)[0, 1])
    ranks = [[np.mean(np.flatnonzero(np.sort(side) == value)) for value in side] for side in (one, other)]
    assert spearman(one, other) == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_senseless_input_is_refused() -> None:
    for judge in (accuracy, f1, matthews):
        for predicted, true in ((np.zeros(3, dtype=int), np.zeros(2, dtype=int)), (np.zeros(0), np.zeros(0))):
            with pytest.raises(ValueError, match="one label per example"):
                judge(predicted, true)
    with pytest.raises(ValueError, match="at least 2 numbers"):
        pearson([1.0], [1.0])
    with pytest.raises(ValueError, match="NaN or infinite"):
        spearman([1.0, float("nan"), 2.0], [1.0, 2.0, float("inf")])
    with pytest.raises(ValueError, match="1 answers to 0 questions"):
        answer_metrics(["x"], [])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("an apple, a pear", "apple pear"),
        ("U.S.", "us"),
        ("Theatre", "theatre"),
        ("a-b", "ab"),
        ("the", ""),
    ],
)
def test_answers_are_normalised_as_in_squad(answer: str, text: str) -> None:
    assert normalised(answer) == text


def test_words_are_counted_as_often_as_they_occur() -> None:
    # normalised: "cat cat sat" and "cat sat sat down": two words in common of 3 and 4
    assert word_f1("The cat, cat sat", "a cat sat sat down") == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert word_f1("dog", "cat") == word_f1("the", "cat") == 0.0
    assert exact_match("The cat.", "cat") == 1.0 and exact_match("cats", "cat") == 0.0


def test_of_several_accepted_answers_the_best_counts() -> None:
    metrics = answer_metrics(["in 1066", "Paris"], [["1066", "in the year 1066"], ["London"]], prefix="own_")
    assert set(metrics) == {"own_exact_match", "own_f1"}
    # "in 1066" and "1066": one word in common of 2 and 1; "in year 1066" of 3: two in common
    assert metrics["own_f1"].value == pytest.approx(50 * max(2 / 3, 4 / 5))
    assert metrics["own_exact_match"].value == 0.0
    assert metrics["own_f1"].n == 2 and metrics["own_f1"].unit == "%"
