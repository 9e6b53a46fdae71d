"""The experiments with BERT: which cells they have, and that their runs leave what the tables read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import registry
from benchmarks.data.examples import HELD_OUT
from benchmarks.experiment import MethodRef, Run
from benchmarks.experiments import bert_glue, bert_rates, bert_squad, bert_sst2
from benchmarks.models.encoder import build_encoder
from benchmarks.specs.encoder import MINILM_RATE
from ecospa import CoupledSparsifier, EcoSpaConfig, apply_plan, coupled_pairs
from tests.benchmarks.tiny_encoders import CLASSIFICATION, ENCODER, SPANS, use_tiny_examples
from tests.benchmarks.tiny_runs import run_context

TIERS = ("smoke", "cpu", "gpu", "paper")


def cells(name: str, tier: str, *methods: str):
    experiment = registry.experiment(name)
    return experiment.cells(tier, tuple(MethodRef(method) for method in methods or experiment.methods))


@pytest.mark.parametrize("tier", TIERS)
def test_k_times_theta_and_the_others(tier: str) -> None:
    found = cells("bert_squad", tier)
    small = {"small_dense"} if tier == "smoke" else set()  # elsewhere the others start from weights
    assert len({cell.config_hash for cell in found}) == len(found) == 13 + len(small)
    own = [cell for cell in found if cell.method == "ecospa_own_pace"]
    grid = {(cell.settings.shrink.top_k, cell.settings.shrink.importance_threshold) for cell in own}
    assert len(own) == 9 and grid == {(k, theta) for k in (0.1, 0.3, 0.5) for theta in (0.7, 0.9, 0.95)}
    assert {cell.method for cell in found if cell not in own} == {"dense", "ecospa", "random_pairs", "movement"} | small
    (common,) = (cell.settings.shrink for cell in found if cell.method == "ecospa")
    assert {cell.settings.shrink.start_step for cell in own} == {common.start_step}
    assert {cell.settings.target for cell in found if cell.method != "dense"} == {0.5}


def test_rates_are_chosen_on_the_training_split() -> None:
    found = cells("bert_rates", "cpu")
    assert {cell.settings.protocol.split for cell in found} == {HELD_OUT}
    rates = [(cell.settings.data.source, cell.settings.training.learning_rate) for cell in found]
    assert len(set(rates)) == len(rates) == 6 and bert_rates.RATES[1] == MINILM_RATE


@pytest.mark.parametrize("tier", TIERS)
def test_every_task_with_every_method(tier: str) -> None:
    found = cells("bert_glue", tier)
    tasks = {(cell.settings.data.configuration, cell.settings.protocol.score) for cell in found}
    assert len({cell.config_hash for cell in found}) == len(found) == 5 * len(tasks)
    assert tasks == ({("default", "accuracy")} if tier == "smoke" else set(bert_glue.SCORES.items()))


@pytest.mark.parametrize("name", ["bert_glue", "bert_squad"])
@pytest.mark.parametrize("tier", TIERS)
def test_sizes_fit_together(name: str, tier: str) -> None:
    for cell in cells(name, tier):
        settings = cell.settings
        assert settings.model.width % settings.model.heads == 0
        assert settings.protocol.sequence_length <= settings.model.positions
        shrink = settings.shrink
        events = (shrink.end_step - shrink.start_step) // shrink.interval
        assert shrink.end_step < shrink.total_steps and (tier == "smoke" or events >= 30)
        assert (settings.model.weights is None) == (tier == "smoke")


@pytest.mark.slow
def test_the_gentlest_pair_has_events_enough() -> None:
    """Counted without training: importances in a fixed order drain one pair after the other, which takes longest."""
    shrink = next(cell.settings.shrink for cell in cells("bert_squad", "cpu", "ecospa_own_pace"))
    model = build_encoder(replace(bert_squad.SCALES["cpu"].model, vocabulary=50, weights=None), None, 0)
    config = EcoSpaConfig(
        top_k=0.10, importance_threshold=0.95, target_size=0.5, target_scope="blocks", interval=1,
        width_multiple=shrink.width_multiple,
    )  # fmt: skip
    sparsifier, events = CoupledSparsifier(model, config), 0
    while not sparsifier.landed(model) and events < 1000:
        pairs = coupled_pairs(model)
        plan = sparsifier.plan(model, {pair.name: float(number) for number, pair in enumerate(pairs)})
        events += 1
        if plan is not None:
            apply_plan(model, plan)
    for experiment in (bert_squad, bert_sst2):
        for tier, interval in experiment.INTERVALS.items():
            scale = experiment.SCALES[tier]
            steps = scale.training.steps  # the pace has no end but that of the run
            assert tier == "smoke" or scale.start_step + events * interval < 0.9 * steps, (tier, events)


@pytest.mark.parametrize(
    ("name", "kind", "protocol", "metric"),
    [("bert_glue", "labels", CLASSIFICATION, "score"), ("bert_squad", "questions", SPANS, "f1")],
)
def test_a_run_leaves_what_the_tables_read(
    name: str, kind: str, protocol: object, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny_examples(monkeypatch)
    cell = next(cell for cell in cells(name, "smoke", "ecospa"))
    settings = cell.settings
    small = replace(
        settings,
        model=ENCODER,
        data=replace(settings.data, configuration=kind, train_examples=None),
        protocol=protocol,
        training=replace(settings.training, steps=12, warmup_steps=2),
        shrink=replace(settings.shrink, total_steps=12, start_step=2, end_step=10, interval=2, width_multiple=2),
    )
    outcome = registry.experiment(name).execute(Run(replace(cell, settings=small), 0), run_context(tmp_path))
    assert {metric, "final_step_time_ratio", "shrink_events"} <= set(outcome.metrics)
    assert outcome.plan_history[-1].block_parameters < 0.6 * outcome.plan_history[0].block_parameters
