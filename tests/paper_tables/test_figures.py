"""The figures draw what the records hold; what they need is tested here, how they look is looked at."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from paper_tables.analysis.curves import band, panels_of, sizes, smooth
from paper_tables.analysis.intervals import Interval
from paper_tables.drawing import forest
from paper_tables.drawing.style import PAPER, drawing, panels, spread
from paper_tables.figures import (
    accuracy_deit_imagenet,
    loss_curves,
    memory_over_steps,
    mismatch_error,
    paired_differences,
    pareto,
    size_over_steps,
)
from paper_tables.item import Plot, for_records, records_of
from paper_tables.registry import items
from results import PlanEvent, RunRecord
from tests.results.factory import make_record

PLOTS = [item for item in items() if isinstance(item, Plot)]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_no_figure_without_records_or_with_bare_ones(plot: Plot) -> None:
    assert plot.build([]) is None
    bare = [make_record(number, experiment=name) for number, name in enumerate(plot.experiments or ("any",))]
    assert plot.build(records_of(plot, bare)) is None


def test_labels_are_moved_apart_as_little_as_needed() -> None:
    assert spread([0.1, 0.9], 0.2) == pytest.approx([0.1, 0.9])
    assert spread([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])
    assert spread([0.9, 0.5, 0.52, 0.48], 0.1) == pytest.approx([0.9, 0.5, 0.6, 0.4])
    assert spread([], 0.1) == []
    assert spread([0.95, 1.0, 0.98, 0.1], 0.1, ceiling=1.0) == pytest.approx([0.8, 1.0, 0.9, 0.1])
    assert spread([0.8, 1.2, 1.3], 0.1, ceiling=1.0) == pytest.approx([0.8, 0.9, 1.0])


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


def test_the_pareto_figure_holds_the_means() -> None:
    records = [
        make_record(seed, {"perplexity": 20.0 + seed, "block_parameters_nonzero": 2_000_000}, seed=seed)
        for seed in range(3)
    ]
    with drawing("test"):
        figure = pareto.build(records)
    assert figure is not None
    (panel,) = figure.axes
    assert [21.0, 0.0] in [point for line in panel.lines for point in np.asarray(line.get_xydata()).tolist()]
    assert panel.get_xlabel() == "perplexity per token, n = 3 seeds, 95% interval"
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["EcoSpa"]
    assert [text.get_text() for text in panel.texts] == ["2.000 M", "in blocks"]


def test_one_wide_interval_does_not_stretch_the_axis() -> None:
    """It ends in an arrow with its end in numbers; all others, and zero where asked for, are inside."""
    narrow = [Interval(mean, 0.2, 3) for mean in (-0.5, 0.1, 0.4, 0.9)]
    wide = Interval(0.5, 40.0, 3)
    low, high = forest.limits([*narrow, wide], zero=True)
    assert -2 < low < -0.7 and 1.1 < high < 2
    assert forest.limits([Interval(5.0, math.inf, 1)])[0] < 5.0 < forest.limits([Interval(5.0, math.inf, 1)])[1]
    assert forest.limits([Interval(3.0, 0.5, 3)], zero=True)[0] < 0.0
    with drawing("test"):
        _, (panel,) = panels(1)
        forest.forest(panel, [forest.Row("dense", wide), forest.Row("ecospa", narrow[0])], (low, high))
    assert [text.get_text() for text in panel.texts] == ["-39.5", "40.5"]
    assert [line.get_marker() for line in panel.lines if line.get_marker() in "<>"] == ["<", ">"]
    assert all(low <= x <= high for line in panel.lines for x in np.asarray(line.get_xdata()))


def test_differences_are_in_thousandths_of_a_nat_and_hollow_around_zero() -> None:
    losses = {"ecospa": (4.0, 4.1, 4.2), "dense": (3.9, 4.0, 4.1), "small_dense": (4.1, 4.0, 4.21)}
    records = [
        make_record(3 * number + seed, {"eval_loss": loss, "perplexity": math.exp(loss)}, method=method, seed=seed)
        for number, (method, own) in enumerate(losses.items())
        for seed, loss in enumerate(own)
    ]
    with drawing("test"):
        figure = paired_differences.build(records)
        older = paired_differences.build([replace(r, metrics={"perplexity": r.metrics["perplexity"]}) for r in records])
    assert figure is not None and older is not None
    (panel,) = figure.axes
    assert "0.001 nats per token" in panel.get_xlabel() and "perplexity per token" in older.axes[0].get_xlabel()
    points = [line for line in panel.lines if line.get_marker() not in ("|", "None", None)]
    assert [float(line.get_xdata()[0]) for line in points] == pytest.approx([100.0, -10 / 3])  # type: ignore[index]
    assert [line.get_markerfacecolor() == PAPER for line in points] == [False, True]


def test_every_model_has_panels_of_accuracy() -> None:
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
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["model 0", "model 1"]
    drawn = [np.asarray(line.get_xydata()).tolist() for panel in figure.axes for line in panel.lines]
    assert [[50.0, 0.0]] in drawn and [[60.0, 0.0]] in drawn
    assert figure.axes[-1].get_xlabel() == "top-1 accuracy (%), one seed"


def test_the_error_axis_leaves_out_zero() -> None:
    curve = {"matrix": "odd", "removal": "aligned", "removed_share": [0.0, 0.5], "relative_error": [0.0, 0.25]}
    record = make_record(experiment="mismatch_error", payload={"curves": [curve]})
    with drawing("test"):
        figure = mismatch_error.build([record])
    assert figure is not None
    (panel,) = figure.axes
    assert panel.get_yscale() == "log" and panel.get_title(loc="left") == "odd"
    assert np.asarray(panel.lines[0].get_xydata()).tolist() == [[50.0, 0.25]]


def trained(number: int, **changes: object) -> RunRecord:
    """A record of a training run of 100 steps."""
    return make_record(number, loss_curve=tuple((step, 5.0 - step / 50) for step in range(10, 101, 10)), **changes)


def test_a_newcomer_without_history_does_not_stop_the_size_figure() -> None:
    ours = trained(1, plan_history=(PlanEvent(0, 900, 800, {}),))
    with drawing("test"):
        figure = size_over_steps.build([ours, trained(2, method="my_method")])
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["EcoSpa"]


def test_an_experiment_has_a_panel_per_target_or_per_setting() -> None:
    dense = trained(1, method="dense", target=None)
    one = [dense, trained(2), trained(3, target=0.3)]
    assert [(panel.title[:3], panel.target) for panel in panels_of(one)] == [("50%", 0.5), ("30%", 0.3)]
    assert [cell.method for cell in panels_of(one)[1].cells] == ["dense", "ecospa"]
    assert [(panel.title, panel.target) for panel in panels_of([dense])] == [("", None)]
    other = [trained(number + 10, data={"source": "squad"}, target=target) for number, target in enumerate((0.5, 0.3))]
    titles = [panel.title for panel in panels_of([*one, *other])]
    kept = "30% of the block parameters kept"
    assert titles == [f"docstrings, {kept}", f"squad, {kept}"]
    # another shape is a setting, what differs in anything else is an older run, and what did not train is no panel
    larger = trained(30, model={"family": "gpt2", "layers": 8, "width": 256})
    assert [panel.title[:19] for panel in panels_of([dense, larger])] == ["4 layers of 128", "8 layers of 256, 50"]
    older = trained(31, method="small_dense", data={"source": "docstrings", "train_bytes": 1})
    assert len(panels_of([*one, older, make_record(40)])) == 2
    assert panels_of([]) == [] and panels_of([make_record(50)]) == []
    models = [trained(60, method="dense", target=None, model={"name": "a"}, data={"source": "one"})]
    models.append(trained(61, method="dense", target=None, model={"name": "b"}, data={"source": "two"}))
    assert [panel.title for panel in panels_of(models)] == ["a", "b"]  # the models' names tell enough


def test_losses_stand_beside_the_dense_models_on_the_same_batches() -> None:
    curve = tuple((step, 5.0 - step / 50) for step in range(10, 101, 10))
    better = tuple((step, loss - 0.002) for step, loss in curve)
    events = tuple(PlanEvent(step, 900 - step, 800 - step, {}) for step in (0, 20, 50))
    records = [
        make_record(1, method="dense", target=None, loss_curve=curve),
        make_record(2, loss_curve=better, plan_history=events),
    ]
    with drawing("test"):
        figure = loss_curves.build(records)
        alone = loss_curves.build(records[1:])
    assert figure is not None and alone is not None
    loss, less = figure.axes
    assert (loss.get_ylabel(), less.get_ylabel()) == ("training loss (nats)", "loss minus dense (0.001 nats)")
    (line, ticks) = less.lines
    assert np.asarray(line.get_ydata()) == pytest.approx(-2.0)
    assert np.asarray(ticks.get_xdata()).tolist() == [20.0, 50.0]
    assert len(alone.axes) == 1  # without a dense model there is nothing to compare with


def test_bytes_are_counted_from_the_size_history() -> None:
    history = (PlanEvent(0, 1000, 800, {}), PlanEvent(40, 600, 400, {}))
    shrunk = trained(1, metrics={"parameters": 600.0}, plan_history=history, training={"steps": 100})
    found = memory_over_steps.held(shrunk)
    assert found is not None and found.counted
    assert (found.steps, found.bytes) == ((0.0, 40.0, 100.0), (16_000.0, 9_600.0, 9_600.0))
    masked = memory_over_steps.held(trained(2, metrics={"parameters": 1000.0}, plan_history=history))
    assert masked is not None and set(masked.bytes) == {16_000.0}
    assert memory_over_steps.held(trained(3)) is None


def test_what_a_record_counted_itself_decides() -> None:
    history = (PlanEvent(0, 1000, 800, {}), PlanEvent(40, 600, 400, {}))
    agreeing = {"parameters": 600.0, "training_bytes_peak": 16_100.0, "training_bytes": 9_700.0}
    found = memory_over_steps.held(trained(1, metrics=agreeing, plan_history=history))
    assert found is not None and found.counted and len(found.steps) == 3
    other = {"parameters": 600.0, "training_bytes_peak": 9_000.0, "training_bytes": 5_000.0}
    found = memory_over_steps.held(trained(2, metrics=other, plan_history=history))
    assert found is not None and not found.counted and found.bytes == (9_000.0, 5_000.0)
    galore = {"training_bytes_peak": 9_000.0, "training_bytes": 9_000.0}
    found = memory_over_steps.held(trained(3, method="galore", metrics=galore, plan_history=history[:1]))
    assert found is not None and found.counted and found.bytes == (9_000.0, 9_000.0)


def test_categories_of_memory_add_up() -> None:
    history = (PlanEvent(0, 1_000_000, 800, {}), PlanEvent(40, 600_000, 400, {}))
    with drawing("test"):
        figure = memory_over_steps.build([trained(1, plan_history=history)])
    assert figure is not None
    texts = [text.get_text() for text in figure.axes[-1].texts]
    assert texts == ["weights 4, 2.4", "gradients 4, 2.4", "optimizer state 8, 4.8"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["EcoSpa 16, 9.6"]


@pytest.fixture(scope="module")
def everything(made_up: tuple[RunRecord, ...]) -> list[RunRecord]:
    return list(made_up)


def written(panel: Axes) -> list[Text]:
    """All text of a panel that is drawn: ticks beyond the limits are not."""
    found = [*panel.texts, panel.xaxis.label, panel.yaxis.label, panel.title, panel._left_title, panel._right_title]
    found += panel.get_legend().get_texts() if panel.get_legend() else []
    for axis in (panel.xaxis, panel.yaxis):
        low, high = sorted(axis.get_view_interval())
        found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in found if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_no_text_is_cut_and_no_label_covers_another(plot: Plot, everything: list[RunRecord]) -> None:
    for own in for_records([plot], everything):
        with drawing(own.name):
            figure = own.build(records_of(own, everything))
            if figure is None:
                continue
            renderer = FigureCanvasAgg(figure).get_renderer()
            figure.draw(renderer)
        page = figure.bbox
        for text in (text for panel in figure.axes for text in written(panel)):
            box = Text.get_window_extent(text, renderer)
            inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
            assert inside, f"{own.name}: {text.get_text()!r} leaves the figure"
        for panel in figure.axes:
            boxes = [Text.get_window_extent(text, renderer) for text in panel.texts]  # without their leaders
            assert not any(first.overlaps(second) for first, second in combinations(boxes, 2)), own.name
