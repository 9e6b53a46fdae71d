"""Loss against cost and the map of shapes, from records of all controls that follow a known law."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from paper_tables.analysis.average_size_law import above_line, fitted, mean_line
from paper_tables.analysis.cells import compare
from paper_tables.drawing.style import drawing, look
from paper_tables.drawing.swarm import swarm
from paper_tables.figures import loss_against_cost, shape_map
from results import PlanEvent, RunRecord
from tests.results.factory import make_record

BLOCKS, SLOPE, STEPS = 200_000, -0.15, 4000
# method -> shares of dense: average size, final size, steps; loss above the line in nats
CONTROLS = {
    "dense": (1.0, 1.0, 1.0, 0.0),
    "dense_average_size": (0.56, 0.56, 1.0, 0.0),
    "small_dense": (0.3, 0.3, 1.0, 0.0),
    "small_dense_equal_flops": (0.3, 0.3, 1.6, -0.15),
    "ecospa": (0.56, 0.3, 1.0, -0.05),
    "ecospa_own_pace": (0.6, 0.35, 1.0, -0.05),
    "ecospa_at_start": (0.33, 0.3, 1.0, 0.0),
    "ecospa_at_end": (0.77, 0.3, 1.0, 0.02),
    "uniform_pairs": (0.56, 0.3, 1.0, 0.07),
    "random_pairs": (0.55, 0.3, 1.0, 0.085),
    "random_indices": (0.56, 0.3, 1.0, -0.045),
    "uncoupled": (1.0, 0.3, 1.0, 0.03),
    "uncoupled_importance": (0.56, 0.3, 1.0, -0.04),
    "magnitude": (1.0, 0.3, 1.0, 0.02),
    "final_shape": (0.3, 0.3, 1.0, -0.14),
    "final_shape_other_seed": (0.3, 0.3, 1.0, -0.13),
    "final_shape_equal_flops": (0.3, 0.3, 1.55, -0.25),
}
SHARES = {"qk": (0.5, 0.1), "vo": (1.0, 0.25), "ffn": (1.0, 0.05)}  # by layer


def events(seed: int) -> tuple[PlanEvent, ...]:
    names = [(f"transformer.h.{layer}.{kind}", kind, layer) for kind in SHARES for layer in range(2)]
    whole = {name: 100 for name, *_ in names}
    last = {name: round(100 * SHARES[kind][layer]) + seed * layer for name, kind, layer in names}
    return PlanEvent(0, 3 * BLOCKS, BLOCKS, whole), PlanEvent(900, 2 * BLOCKS, BLOCKS // 3, last)


def controls(seeds: int = 3) -> Iterator[RunRecord]:
    """Every method at a target of 30%, its loss the law's plus a part that the seeds of all methods share."""
    for number, (method, (average, final, steps, above)) in enumerate(CONTROLS.items()):
        for seed in range(seeds):
            noise = 0.02 * math.sin(3 * seed) + 0.004 * math.sin(7 * seed + number)
            loss = (
                3.3 + SLOPE * math.log(average) + above + (noise if method == "random_pairs" else 0.02 * math.sin(seed))
            )
            metrics = {
                **{
                    "eval_loss": loss,
                    "perplexity": math.exp(loss),
                    "run_flops": 7.3e12 * steps * (0.15 + 0.85 * average),
                },
                **{"block_parameters": BLOCKS * final, "block_parameters_nonzero": BLOCKS * final},
                "average_block_parameters": BLOCKS * average,
            }
            yield make_record(
                100 * number + seed, metrics, method=method, seed=seed,
                target=None if method in ("dense", "dense_average_size") else 0.3,
                training={"steps": round(STEPS * steps)}, plan_history=events(seed) if method == "ecospa" else (),
            )  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    return list(controls())


def test_the_line_goes_through_its_points() -> None:
    line = fitted({"a": 1.0, "b": math.e, "c": 5.0}, {"a": 3.0, "b": 2.5})
    assert line is not None and (line.low, line.high) == (1.0, math.e)
    assert line.loss(math.e**2) == pytest.approx(2.0)
    assert fitted({"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 2.0}) is None and fitted({}, {}) is None


def test_the_law_is_found_and_what_lies_below_it_is_measured_seed_by_seed(records: list[RunRecord]) -> None:
    cells = compare(records).cells
    line = mean_line(cells)
    assert line is not None and line.slope == pytest.approx(SLOPE)
    above = above_line(next(cell for cell in cells if cell.method == "ecospa"), cells)
    assert above is not None and above.n == 3
    assert (above.mean, above.half_width) == pytest.approx((-0.05, 0.0), abs=1e-9)  # what seeds share is out of it


def test_a_model_of_another_number_of_steps_is_not_in_the_line(records: list[RunRecord]) -> None:
    longer = [r for r in records if r.method == "dense" or r.method == "ecospa"]
    longer += [make_record(9000 + seed, {"eval_loss": 2.0, "average_block_parameters": 1000.0}, method="small_dense",
                           seed=seed, target=0.3, training={"steps": 2 * STEPS}) for seed in range(3)]  # fmt: skip
    cells = compare(longer).cells
    assert mean_line(cells) is None
    assert above_line(next(cell for cell in cells if cell.method == "ecospa"), cells) is None


def test_loss_stands_over_three_costs_with_every_method_once(records: list[RunRecord]) -> None:
    with drawing("test"):
        figure = loss_against_cost.build(records)
    assert figure is not None
    assert [panel.get_xlabel() for panel in figure.axes] == [*loss_against_cost.COSTS.values()]
    assert figure.axes[0].get_title(loc="left") == "30% of the blocks kept; n = 3 seeds, 95% interval"
    for panel in figure.axes:
        assert len(panel.containers) == len(CONTROLS) and panel.get_xscale() == "log"
    legend = figure.axes[0].get_legend()
    looks = [(handle.get_color(), handle.get_marker()) for handle in legend.legend_handles]  # type: ignore[union-attr]
    assert len(set(looks)) == len(CONTROLS) and look("final_shape") in looks
    assert "EcoSpa minus fit:\n-50 [-50, -50]" in figure.axes[1].texts[0].get_text()
    assert len([line for line in figure.axes[1].lines if line.get_linestyle() == "--"]) == 1


def test_points_stand_side_by_side_where_they_would_cover_one_another() -> None:
    moved = swarm([(0.5, 0.50), (0.5, 0.51), (0.5, 0.9), (0.52, 0.49)], 0.04, 0.04, first=1)
    assert moved[1] == moved[2] == 0.5  # the one that keeps its place, and one that is in nobody's way
    near = [moved[place] for place in (0, 1, 3)]
    assert all(abs(a - b) >= 0.0396 for a, b in combinations(near, 2)) and max(map(abs, near)) < 0.6
    assert swarm([], 0.1, 0.1) == []


def test_a_cost_that_no_record_has_gets_no_panel(records: list[RunRecord]) -> None:
    older = [make_record(n, {"eval_loss": 3.0, "run_flops": 1e12}, seed=n) for n in range(2)]
    with drawing("test"):
        figure = loss_against_cost.build(older)
    assert figure is not None and [panel.get_xlabel() for panel in figure.axes] == ["training FLOPs"]


def test_the_key_stays_inside_the_figure(records: list[RunRecord]) -> None:
    with drawing("test"):
        figure = loss_against_cost.build(records)
        assert figure is not None
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    box = legend.get_window_extent(renderer)
    assert box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_the_map_holds_the_mean_shape_and_its_spread(records: list[RunRecord]) -> None:
    with drawing("test"):
        figure = shape_map.build(records)
        alone = shape_map.build([record for record in records if record.seed == 0])
    assert figure is not None and alone is not None
    panel = figure.axes[0]
    assert panel.get_title(loc="left") == "30% kept, n = 3 seeds ± standard deviation"
    assert [text.get_text() for text in panel.get_xticklabels()] == [
        "query and key",
        "value and output",
        "feed-forward",
    ]
    assert [text.get_text() for text in panel.texts] == [
        "50\n± 0", "100\n± 0", "100\n± 0", "11\n± 1", "26\n± 1", "6\n± 1",
    ]  # fmt: skip
    assert alone.axes[0].get_title(loc="left").endswith("one seed")
    assert [text.get_text() for text in alone.axes[0].texts][3:] == ["10", "25", "5"]
    assert np.isfinite(panel.collections[0].get_array()).all()  # type: ignore[union-attr]
    assert shape_map.build([record for record in records if record.method != "ecospa"]) is None
