"""The registry finds every experiment, and every experiment says what it is."""

from __future__ import annotations

import pytest

from benchmarks import registry
from benchmarks.experiment import TIERS, MethodRef


def test_the_experiments_are_found() -> None:
    assert {"coupled_vs_uncoupled", "mismatch_error", "pretrained_shrink"} <= set(registry.experiments())


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'mismatch'.*choose from .*mismatch_error"):
        registry.experiment("mismatch")


@pytest.mark.parametrize("name", list(registry.experiments()))
def test_every_header_gives_question_command_hours_and_expectation(name: str) -> None:
    text = registry.header(name)
    for part in ("What it tests:", f"python -m benchmarks run {name}", "Hours", "Expected result:"):
        assert part in text


@pytest.mark.parametrize("name", list(registry.experiments()))
def test_every_tier_has_cells_or_a_reason(name: str) -> None:
    experiment = registry.experiment(name)
    methods = tuple(MethodRef(method) for method in experiment.methods)
    for tier in TIERS:
        if tier not in experiment.tiers:
            assert experiment.absent[tier]
            continue
        cells = experiment.cells(tier, methods)
        assert cells
        assert len({cell.config_hash for cell in cells}) == len(cells)
        assert {cell.tier for cell in cells} == {tier}


def test_the_main_comparison_has_every_method_at_smoke_and_dense_once() -> None:
    experiment = registry.experiment("coupled_vs_uncoupled")
    cells = experiment.cells("smoke", tuple(MethodRef(method) for method in experiment.methods))
    assert {cell.method for cell in cells} == set(experiment.methods) - {"final_shape_other_seed"}  # there is one seed
    assert len(cells) == 29
    assert [cell.method for cell in cells if cell.config["target"] is None] == ["dense"]


def test_about_forty_events_end_before_three_quarters_of_the_steps() -> None:
    experiment = registry.experiment("coupled_vs_uncoupled")
    for tier in TIERS:
        shrink = experiment.cells(tier, (MethodRef("ecospa"),))[0].settings.shrink
        events = (shrink.end_step - shrink.start_step) / shrink.interval
        assert (20 if tier == "smoke" else 35) <= events <= 45
        assert shrink.end_step <= 0.77 * shrink.total_steps


def test_a_single_cut_is_one_event_where_the_others_begin_or_end() -> None:
    experiment = registry.experiment("coupled_vs_uncoupled")
    names = ("ecospa", "ecospa_at_start", "ecospa_at_end")
    gradual, early, late = (experiment.cells("cpu", (MethodRef(name),))[0].settings.shrink for name in names)
    assert early.start_step == gradual.start_step and early.end_step == gradual.start_step + gradual.interval
    assert late.end_step == gradual.end_step and late.start_step == gradual.end_step - gradual.interval
    assert {early.interval, late.interval} == {gradual.interval}
    labels = [cell.label for cell in experiment.cells("gpu", tuple(MethodRef(name) for name in names))]
    assert labels == [f"{name} {target:g}" for target in (0.5, 0.3) for name in names]
