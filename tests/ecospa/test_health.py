"""Failure signatures: each is told where it is, once, with its numbers, and none of a run that is healthy."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import ecospa
from ecospa import EcoSpaConfig, FailureSignatureWarning, LossWatch
from ecospa.ranking_check import compare_ranking
from tests.ecospa.loops import IDS
from tests.ecospa.trainer_runs import Rows, trainer_of
from tests.model_zoo import ZOO

GENTLE = {"target_size": 0.9, "start_step": 4, "end_step": 24, "interval": 4}
STEEP = {"target_size": 0.1, "start_step": 4, "end_step": 7, "interval": 1}


@dataclass(frozen=True)
class Cut:
    step: int


def watched(losses: Iterable[float], cuts: Sequence[int], watch: LossWatch, every: int = 1) -> LossWatch:
    """Feed losses with cuts after the steps that are given, as a plain loop does; no warning reaches the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FailureSignatureWarning)
        for step, loss in enumerate(losses, start=1):
            if step % every == 0:
                watch.observe(step, loss)
            if step in cuts:
                watch.cut(Cut(step))
    return watch


def noisy(levels: Iterable[float], seed: int = 0, noise: float = 0.05) -> list[float]:
    draw = random.Random(seed)
    return [level + draw.gauss(0, noise) for level in levels]


def signatures(watch: LossWatch) -> list[tuple[str, int]]:
    return [(found.signature, found.step) for found in watch.findings]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_told_of_a_noisy_loss_that_recovers(seed: int) -> None:
    falling = [3.0 + 3.0 * math.exp(-step / 150) for step in range(600)]
    bumps = [0.3 * math.exp(-(step % 40) / 8) for step in range(600)]
    losses = noisy((level + bump for level, bump in zip(falling, bumps, strict=True)), seed)
    assert watched(losses, range(40, 600, 40), LossWatch()).findings == []


def test_nothing_is_told_without_a_cut() -> None:
    assert watched([1.0] * 50 + [9.0] * 200 + [math.nan], (), LossWatch()).findings == []


def test_a_loss_that_jumps_is_told_once_a_window_later_and_again_after_a_recovery() -> None:
    losses = [2.0] * 30 + [3.0] * 50 + [2.0] * 40 + [3.0] * 30
    watch = watched(losses, (30, 35, 120), LossWatch(window=10, patience=1000))
    assert signatures(watch) == [("divergence", 40), ("divergence", 130)]
    first = watch.findings[0]
    assert (first.since, first.before, first.after) == (30, 2.0, 3.0)
    assert "step 40: divergence after the cut at step 30: the loss is 3, and was 2 before" in first.message
    assert "start_step" in first.message and "ecospa.check_ranking" in first.message


def test_a_loss_that_stays_up_is_a_plateau_after_the_patience_and_not_before() -> None:
    losses = [2.0] * 30 + [2.15] * 200
    for patience in (50, 90):
        watch = watched(losses, range(30, 200, 10), LossWatch(window=10, patience=patience))
        assert signatures(watch) == [("plateau", 30 + patience)]
        assert "not come back for" in watch.findings[0].message
    assert watched(losses, (30,), LossWatch(window=10, patience=50, tolerance=0.08)).findings == []


def test_a_slow_drift_over_many_cuts_is_compared_with_the_best_level_before() -> None:
    losses = [2.0 + 0.02 * (step // 50) for step in range(1000)]  # one cut alone is within the tolerance
    watch = watched(losses, range(50, 1000, 50), LossWatch(patience=100))
    assert next(name for name, _ in signatures(watch)) == "plateau"
    assert watch.findings[0].before == pytest.approx(2.0)


def test_a_loss_that_is_no_number_is_told_at_once() -> None:
    watch = watched([2.0] * 10 + [math.nan, math.inf], (9,), LossWatch(window=5))
    assert signatures(watch) == [("divergence", 11)]
    assert watch.findings[0].before == 2.0


def test_cuts_in_the_first_steps_are_compared_with_the_losses_that_there_are() -> None:
    watch = watched([2.0] * 2 + [4.0] * 30, (2, 3, 4), LossWatch(window=10))
    assert signatures(watch) == [("divergence", 12)]
    assert watched([4.0] * 30, (0,), LossWatch(window=10)).findings == []


def test_one_loss_is_as_noisy_as_the_others() -> None:
    losses = [2.0, *noisy([2.4] * 60, noise=0.5)]  # the first batch was an easy one
    assert watched(losses, (1,), LossWatch(window=10)).findings == []


def test_logged_means_count_for_all_their_steps_and_one_over_a_cut_for_neither_side() -> None:
    losses = [2.0] * 30 + [9.0] * 9 + [2.0] * 61
    assert watched(losses, (25,), LossWatch(window=20), every=10).findings == []
    jumped = [2.0] * 25 + [3.0] * 75
    assert signatures(watched(jumped, (25,), LossWatch(window=20), every=10)) == [("divergence", 50)]


def test_a_step_that_comes_again_begins_another_run() -> None:
    watch = watched([2.0] * 30 + [3.0], (30,), LossWatch(window=10))
    assert watched([5.0] * 60, (), watch).findings == []


@pytest.mark.parametrize("wrong", [{"window": 0}, {"patience": 0}, {"tolerance": 0.2}, {"tolerance": -0.1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LossWatch(**wrong)


class Reversed(ecospa.CoupledEstimator):
    """The most important pairs first."""

    def importances(self) -> dict[str, float]:
        """The importances, negative."""
        return {name: -value for name, value in super().importances().items()}


def memorized() -> Any:
    """A tiny GPT-2 that knows sixteen sequences by heart: its blocks matter."""
    torch.manual_seed(0)
    model: Any = ZOO["gpt2"].build().float().eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.fixture(scope="module")
def knowing() -> Mapping[str, torch.Tensor]:
    return {name: value.clone() for name, value in memorized().state_dict().items()}


def run(weights: Mapping[str, torch.Tensor], schedule: Mapping[str, Any], steps: int = 40) -> LossWatch:
    """Go on with the model that knows its sequences, and shrink it."""
    model: Any = ZOO["gpt2"].build().float().eval()
    model.load_state_dict(weights)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    config = EcoSpaConfig(target_scope="blocks", pace="curve", width_multiple=1, **schedule)
    watch = LossWatch(window=4, patience=15)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config, on_cut=watch.cut)
    for step in range(1, steps + 1):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        sparsity.after_backward()
        watch.observe(step, loss.item())
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()
    return watch


def test_nothing_is_told_of_a_gentle_schedule(knowing: Mapping[str, torch.Tensor]) -> None:
    assert run(knowing, GENTLE).findings == []


def test_a_schedule_too_early_and_steep_is_told(knowing: Mapping[str, torch.Tensor]) -> None:
    with pytest.warns(FailureSignatureWarning, match="divergence after the cut at step 5"):
        watch = run(knowing, STEEP)
    assert watch.findings[0].step <= 12 and watch.findings[0].after > 1.1 * watch.findings[0].before


def losses_of(model: Any) -> float:
    return float(model(input_ids=IDS, labels=IDS).loss)


@pytest.mark.parametrize(("estimator", "wrong"), [(None, False), (Reversed, True)])
def test_a_ranking_upside_down_is_told_before_it_cuts(
    knowing: Mapping[str, torch.Tensor], estimator: Any, wrong: bool
) -> None:
    model: Any = ZOO["gpt2"].build().float().train()
    model.load_state_dict(knowing)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    config = EcoSpaConfig(target_scope="blocks", pace="curve", width_multiple=1, **GENTLE)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config, estimator=estimator)
    for _ in range(5):  # the window opens at start_step
        model(input_ids=IDS, labels=IDS).loss.backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ecospa.check_ranking(sparsity, losses_of)
    assert found.reversed is wrong
    assert [one.category for one in caught] == [FailureSignatureWarning] * wrong
    assert (found.least > found.most) is wrong and min(found.least, found.most) >= found.dense - 1e-3
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_ranking_of_pairs_that_matter_alike_is_not_told() -> None:
    torch.manual_seed(0)
    model = ZOO["gpt2"].build().float()  # untrained: no pair matters
    importances = {pair.name: float(number) for number, pair in enumerate(ecospa.coupled_pairs(model))}
    assert not compare_ranking(model, importances, losses_of).reversed
    with pytest.raises(ValueError, match="two at least"):
        compare_ranking(model, dict(list(importances.items())[:1]), losses_of)


def test_a_trainer_tells_what_its_log_shows(knowing: Mapping[str, torch.Tensor], tmp_path: Path) -> None:
    def trained(schedule: Mapping[str, Any]) -> Any:
        model: Any = ZOO["gpt2"].build().float()
        model.load_state_dict(knowing)
        config = EcoSpaConfig(target_scope="blocks", pace="curve", width_multiple=1, **schedule)
        trainer = trainer_of(
            tmp_path / str(schedule["target_size"]), model=model, config=config, max_steps=30, logging_steps=2,
            save_strategy="no", learning_rate=1e-4,
        )  # fmt: skip
        trainer.train_dataset = Memorized()
        trainer.ecospa.watch = LossWatch(window=4, patience=15)
        trainer.train()
        return trainer.ecospa.watch

    assert trained(GENTLE).findings == []
    with pytest.warns(FailureSignatureWarning, match="divergence after the cut at step 5"):
        assert next(name for name, _ in signatures(trained(STEEP))) == "divergence"


class Memorized(Rows):
    """The sequences that the model knows."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": IDS[index], "labels": IDS[index]}
