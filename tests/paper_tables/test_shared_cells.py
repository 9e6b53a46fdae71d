"""Cells that experiments have in common, recorded once: who gets which, and that tables and claims see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from paper_tables.analysis.k_theta_grid import FROM_SCRATCH, SHARED_MODEL, stages
from paper_tables.analysis.shared_cells import LENDERS, METHODS, of_experiment
from paper_tables.claims.grid_judges import better
from paper_tables.claims.pretraining_judges import smaller_beats
from paper_tables.claims.published import GPT2_MEDIUM_PERPLEXITY
from paper_tables.claims.quality_judges import beats
from paper_tables.claims.verdicts import CANNOT_DECIDE, DIRECTION, NOT_REPRODUCED
from paper_tables.item import records_of
from paper_tables.tables import gpt2_pretraining, importance_metrics, k_theta_sweep, shape_first
from results import RunRecord
from tests.results.factory import make_record
from tests.results.regime_records import sized

MODEL = {"name": SHARED_MODEL, "layers": 4}
COMMON: dict[str, Any] = {"tier": "cpu", "model": MODEL}


def runs(first: int, values: Sequence[float], method: str, experiment: str, **changes: Any) -> list[RunRecord]:
    return [
        make_record(
            first + seed,
            {"perplexity": value, "block_parameters": 60_000, "parameters": 100_000},
            **{**COMMON, "method": method, "experiment": experiment, "seed": seed, "target": 0.3, **changes},
        )
        for seed, value in enumerate(values)
    ]


def lent() -> list[RunRecord]:
    """EcoSpa, uncoupled indices, a control, dense and small dense models at both targets."""
    made = [*sized(500, target=0.3, **COMMON), *sized(600, target=0.5, whole=False, **COMMON)]
    for place, target in enumerate((0.3, 0.5)):
        made += runs(10 + 100 * place, (15.0, 15.1, 15.2), "ecospa", "coupled_vs_uncoupled", target=target)
        made += runs(20 + 100 * place, (15.5, 15.4, 15.6), "uncoupled", "coupled_vs_uncoupled", target=target)
        made += runs(30 + 100 * place, (14.0, 14.1, 14.2), "final_shape", "coupled_vs_uncoupled", target=target)
    return made


def cells(records: Sequence[RunRecord]) -> set[tuple[str, float | None]]:
    return {(record.method, record.config["target"]) for record in records}


def test_shared_methods_of_the_own_target_are_lent() -> None:
    own = runs(1000, (16.0, 16.1, 16.2), "importance_random", "importance_metrics")
    found = of_experiment([*lent(), *own], "importance_metrics")
    assert found[:3] == own
    assert cells(found[3:]) == {("dense", None), ("small_dense", 0.3), ("ecospa", 0.3), ("final_shape", 0.3)}
    assert {record.experiment for record in found[3:]} == {"coupled_vs_uncoupled"}
    assert {method for method, _ in cells(found[3:])} <= set(METHODS["coupled_vs_uncoupled"])


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": SHARED_MODEL, "layers": 6}},
        {"data": {"source": "other"}},
        {"protocol": {"split": "validation"}},
        {"data_fingerprint": "other"},
        {"training": {"steps": 100, "batch_size": 8}},
        {"training": {"steps": 200, "batch_size": 16}},
        {"tier": "gpu"},
        {"status": "failed", "error": "boom"},
    ],
)
def test_other_settings_borrow_nothing(changes: dict[str, Any]) -> None:
    own = runs(1000, (16.0, 16.1, 16.2), "importance_random", "importance_metrics", **changes)
    assert of_experiment([*lent(), *own], "importance_metrics") == own


def test_a_rate_of_its_own_and_twice_the_steps_are_the_same_training() -> None:
    rate = {"steps": 200, "batch_size": 8, "learning_rate": 0.01}
    own = runs(1000, (16.0,), "importance_random", "importance_metrics", training=rate)
    assert len(of_experiment([*lent(), *own], "importance_metrics")) > 1
    twice = {"steps": 400, "batch_size": 8}
    own = runs(1000, (9.0,), "dense_twice_steps", "gpt2_pretraining", target=None, training=twice)
    assert {target for _, target in cells(of_experiment([*lent(), *own], "gpt2_pretraining"))} == {None, 0.3, 0.5}


def test_other_experiments_and_empty_ones_borrow_nothing() -> None:
    assert of_experiment(lent(), "coupled_vs_uncoupled") == lent()
    assert of_experiment([*lent(), *runs(1000, (1.0,), "x", "llama_pretraining")], "llama_pretraining")[1:] == []
    for name in LENDERS:
        assert of_experiment(lent(), name) == []


def test_a_deit_without_its_teacher_borrows_the_runs_of_the_vit() -> None:
    own = runs(1000, (16.0, 16.1), "svite", "deit_imagenet", target=0.5)
    vit = runs(10, (15.0, 15.1), "magnitude", "vit_cifar10", target=0.5)
    vit += runs(20, (15.0, 15.1), "ecospa", "vit_cifar10", target=0.3)
    vit += runs(30, (15.0, 15.1), "ecospa_at_start", "vit_cifar10", target=0.5)
    assert cells(of_experiment([*lent(), *vit, *own], "deit_imagenet")) == {("svite", 0.5), ("magnitude", 0.5)}


@pytest.mark.parametrize("tier", ["cpu", "gpu"])
def test_shapes_borrow_at_every_tier_their_own_and_say_what_they_are(tier: str) -> None:
    own = runs(1000, (15.0, 15.1, 15.2), "shape_10_units_equal_flops", "shape_first", tier=tier)
    own += runs(1100, (15.5, 15.6, 15.7), "shape_10_average", "shape_first", tier=tier)
    own += runs(1200, (16.0, 16.1, 16.2), "shape_20_kept", "shape_first", tier=tier)
    lenders = [*lent(), *runs(1300, (15.3, 15.4, 15.5), "ecospa", "coupled_vs_uncoupled", tier="gpu")]
    borrowed = of_experiment([*lenders, *own], "shape_first")[len(own) :]
    assert {record.tier for record in borrowed} == {tier} and ("ecospa", 0.3) in cells(borrowed)
    table = shape_first.build([*own, *borrowed])
    rows = table.set_index("Shape")
    assert {
        "shape of a 10% probe, units ranked, equal FLOPs", "shape of a 10% probe, mean of three",
        "weights of a 20% probe", "EcoSpa",
    } <= set(rows.index)  # fmt: skip
    against = rows["Against EcoSpa"]
    if tier == "gpu":
        assert against["shape of a 10% probe, units ranked, equal FLOPs"].startswith("-0.0")
        assert against["weights of a 20% probe"].startswith("+0.0")
    assert shape_first.build([]).empty


def test_tables_and_claims_of_importance_see_them() -> None:
    records = [*lent(), *runs(1000, (16.0, 16.1, 16.2), "importance_random", "importance_metrics")]
    table = importance_metrics.build(records_of(importance_metrics.ITEM, records))
    assert set(table["Pairs chosen by"]) >= {"dense", "Fisher (EcoSpa)", "random", "small dense"}
    assert set(table["Blocks kept"]) == {"all", "30%"}
    found = beats("importance_random", None, "importance_metrics")(records, "cpu")
    assert found.kind == DIRECTION and found.experiment == "importance_metrics"


def test_the_stage_from_scratch_is_that_of_the_shared_model() -> None:
    grid = [
        record
        for place, (theta, values) in enumerate(((70, (16.0, 16.1, 16.2)), (95, (15.0, 15.1, 15.2))))
        for record in runs(
            1000 + 10 * place, values, f"ecospa_k30_theta{theta}", "k_theta_sweep",
            method_config={"top_k": 0.3, "importance_threshold": theta / 100},
        )
    ]  # fmt: skip
    own = of_experiment([*lent(), *grid], "k_theta_sweep")
    assert list(stages(own)) == [FROM_SCRATCH] and len(stages(own)[FROM_SCRATCH].points) == 2
    judge = better("theta", FROM_SCRATCH, larger=True)
    assert judge([*lent(), *grid], "cpu").kind == DIRECTION
    assert judge(grid, "cpu").kind == CANNOT_DECIDE
    table = k_theta_sweep.build(records_of(k_theta_sweep.ITEM, [*lent(), *grid]))
    assert set(table["Stage"]) == {"pre-training"} and "dense" in set(table["K"])


def test_gpt2_is_as_many_times_smaller_at_shares_of_the_blocks() -> None:
    twice = {"steps": 400, "batch_size": 8}
    own = runs(1000, (9.0, 9.1, 9.2), "dense_twice_steps", "gpt2_pretraining", target=None, training=twice)
    records = [*lent(), *own]
    judge = smaller_beats("dense_twice_steps", 2.2, "GPT-2-Medium", GPT2_MEDIUM_PERPLEXITY)
    assert judge(records, "cpu").kind == NOT_REPRODUCED
    assert smaller_beats("small_dense", 1.6, "GPT-2-Small")(records, "cpu").kind == DIRECTION
    table = gpt2_pretraining.build(records_of(gpt2_pretraining.ITEM, records))
    assert {"EcoSpa", "small dense", "dense, twice the steps"} <= set(table["Method"])
