"""The figures draw what the records hold; what they need is tested here, how they look is looked at."""

from __future__ import annotations

import numpy as np
import pytest

from paper_tables.curves import band, sizes, smooth
from paper_tables.figures import accuracy_deit_imagenet, mismatch_error, pareto, size_over_steps
from paper_tables.item import Plot, records_of
from paper_tables.registry import items
from paper_tables.style import color, drawing, marker, spread
from results import PlanEvent
from tests.results.factory import METHODS, make_record

PLOTS = [item for item in items() if isinstance(item, Plot)]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_no_figure_without_records_or_with_bare_ones(plot: Plot) -> None:
    assert plot.build([]) is None
    bare = [make_record(number, experiment=name) for number, name in enumerate(plot.experiments)]
    assert plot.build(records_of(plot, bare)) is None or plot.name == "size_over_steps"


def test_labels_are_moved_apart_as_little_as_needed() -> None:
    assert spread([0.1, 0.9], 0.2) == pytest.approx([0.1, 0.9])
    assert spread([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])
    assert spread([0.9, 0.5, 0.52, 0.48], 0.1) == pytest.approx([0.9, 0.5, 0.6, 0.4])
    assert spread([], 0.1) == []


def test_a_band_spans_the_seeds_where_all_of_them_reach() -> None:
    found = band([[(0, 1.0), (10, 3.0), (20, 5.0)], [(10, 5.0), (30, 5.0)]])
    assert found is not None
    assert found.x.tolist() == [10.0, 20.0]
    assert (found.low.tolist(), found.mean.tolist(), found.high.tolist()) == ([3.0, 5.0], [4.0, 5.0], [5.0, 5.0])
    assert band([]) is None and band([[(0, 1.0)]]) is None
    assert band([[(0, 1.0), (1, 1.0)], [(5, 1.0), (6, 1.0)]]) is None


def test_smoothing_is_a_running_mean_that_never_looks_ahead() -> None:
    assert smooth([(1, 2.0), (2, 4.0), (3, 9.0), (4, 1.0)], 2) == [(1, 2.0), (2, 3.0), (3, 6.5), (4, 5.0)]
    assert smooth([], 3) == []


def test_sizes_are_shares_of_the_dense_model_up_to_the_last_step() -> None:
    history = (PlanEvent(0, 900, 800, {}), PlanEvent(50, 500, 400, {}))
    record = make_record(plan_history=history, training={"steps": 120})
    assert sizes(record, 800) == [(0.0, 1.0), (50.0, 0.5), (120.0, 0.5)]
    assert sizes(make_record(), 800) == []


def test_every_method_looks_different_and_a_newcomer_always_the_same() -> None:
    known = (*METHODS, "dense")
    assert len({color(method) for method in known}) == len({marker(method) for method in known}) == len(known)
    assert color("my_method") == color("my_method") and color("my_method") not in {color(m) for m in known}


def test_the_pareto_figure_holds_the_means() -> None:
    records = [
        make_record(seed, {"perplexity": 20.0 + seed, "block_parameters_nonzero": 2_000_000}, seed=seed)
        for seed in range(3)
    ]
    with drawing("test"):
        figure = pareto.build(records)
    assert figure is not None
    (panel,) = figure.axes
    assert panel.lines[0].get_xydata().tolist() == [[2.0, 21.0]]
    assert panel.get_xlabel() == "non-zero block parameters (millions)"
    assert [text.get_text() for text in panel.texts] == ["EcoSpa"]


def test_accuracy_of_all_models_stands_in_one_panel() -> None:
    records = [
        make_record(
            number, {"top1": 0.5 + number / 10, "block_parameters_nonzero": 1e6 * (1 + number)}, method="dense",
            experiment="deit_imagenet", target=None, model={"name": f"model {number}"},
        )
        for number in range(2)
    ]  # fmt: skip
    with drawing("test"):
        figure = accuracy_deit_imagenet.build(records)
    assert figure is not None
    (panel,) = figure.axes
    assert np.asarray(panel.lines[0].get_xydata()) == pytest.approx(np.array([[1.0, 0.5], [2.0, 0.6]]))
    assert panel.yaxis.get_major_formatter()(0.5) in ("50%", "50.0%")
    assert panel.get_ylabel() == "top-1 accuracy"


def test_the_error_axis_leaves_out_zero() -> None:
    curve = {"matrix": "odd", "removal": "aligned", "removed_share": [0.0, 0.5], "relative_error": [0.0, 0.25]}
    record = make_record(experiment="mismatch_error", payload={"curves": [curve]})
    with drawing("test"):
        figure = mismatch_error.build([record])
    assert figure is not None
    (panel,) = figure.axes
    assert panel.get_yscale() == "log" and panel.get_title(loc="left") == "odd"
    assert np.asarray(panel.lines[0].get_xydata()).tolist() == [[50.0, 0.25]]


def test_a_newcomer_without_history_does_not_stop_the_size_figure() -> None:
    ours = make_record(1, plan_history=(PlanEvent(0, 900, 800, {}),))
    with drawing("test"):
        figure = size_over_steps.build([ours, make_record(2, method="my_method")])
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["EcoSpa"]
