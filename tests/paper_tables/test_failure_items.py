"""Table and figure of failures on purpose, from made-up records whose numbers are seen at a glance."""

from __future__ import annotations

from typing import Any

from paper_tables.drawing.style import drawing
from paper_tables.figures import failure_losses as figure
from paper_tables.tables import failure_signatures as table
from paper_tables.tables import irregular_widths
from results import PlanEvent, RunRecord
from tests.results.factory import make_record

EXPERIMENT = "failure_signatures"


def finding(signature: str, step: int, before: float | None, after: float | None) -> dict[str, Any]:
    return {"signature": signature, "step": step, "since": 5, "before": before, "after": after, "message": "told"}


def run(number: int, method: str, seed: int, *findings: dict[str, Any]) -> RunRecord:
    level = 3.0 if method == "healthy" else 4.0
    return make_record(
        number, {"perplexity": 50.0 + number}, experiment=EXPERIMENT, method=method, seed=seed,
        payload={"findings": list(findings)},
        loss_curve=tuple((step, level - 0.001 * step) for step in range(1, 101)),
        plan_history=(PlanEvent(0, 1000, 800, {}), PlanEvent(5, 600, 400, {})),
    )  # fmt: skip


def widths(number: int, seed: int, odd: float) -> RunRecord:
    rows = [
        {
            "precision": "fp32", "name": name, "block_share": share, "step_flops_ratio": flops, "step_time_ratio": time,
            "pairs": 6, "irregular_pairs": 6 * (flops == 0.49), "rounded_time_ratio": ratio, "no_speedup": ratio > 1,
        }
        for name, share, flops, time, ratio in (
            ("dense", 1.0, 1.0, 1.0, 1.0),
            ("multiples of 8", 0.5, 0.5, 0.6, 1.0),
            ("one index less", 0.5, 0.49, 0.7, odd),
        )
    ]  # fmt: skip
    return make_record(
        number, {}, experiment=EXPERIMENT, method="irregular_widths", seed=seed, payload={"widths": rows},
        data={"source": "random numbers"}, model={"name": "gpt2"}, data_fingerprint="0" * 64,
    )  # fmt: skip


def made() -> list[RunRecord]:
    steep = [
        run(2, "early_and_steep", 0, finding("divergence", 20, 3.0, 3.9), finding("plateau", 105, 3.0, 3.5)),
        run(3, "early_and_steep", 1, finding("divergence", 30, 3.0, None), finding("divergence", 90, 3.0, 4.0)),
    ]
    return [
        run(0, "healthy", 0), run(1, "healthy", 1), *steep, run(4, "reversed_importance", 0),
        run(5, "reversed_importance", 1, finding("reversed ranking", 60, 3.1, 3.6)),
        widths(6, 0, 1.1), widths(7, 1, 0.9),
    ]  # fmt: skip


def test_the_table_has_a_row_per_run_and_signature_by_the_first_telling() -> None:
    built = table.build(made())
    shown = built[["Run", "Told", "In seeds", "At step", "Loss compared with", "Loss"]].to_numpy().tolist()
    assert shown == [
        ["healthy", "nothing", "2 of 2", "-", "-", "-"],
        ["early and steep", "divergence", "2 of 2", "25", "3.000", "3.900"],
        ["early and steep", "plateau", "1 of 2", "105", "3.000", "3.500"],
        ["reversed importance", "reversed ranking", "1 of 2", "60", "3.100", "3.600"],
        ["reversed importance", "nothing", "1 of 2", "-", "-", "-"],
    ]
    assert any(line.startswith("Protocol") for line in table.notes(made()))


def test_widths_have_a_table_of_their_own() -> None:
    built = irregular_widths.build(made())
    assert built["Widths"].tolist() == ["dense", "multiples of 8", "one index less"]
    assert built["Irregular pairs"].tolist() == ["0 of 12", "0 of 12", "12 of 12"]
    assert built["No speed-up told"].tolist() == ["0 of 2", "0 of 2", "1 of 2"]
    assert built["Time / dense"].tolist()[1:] == ["0.6000", "0.7000"]
    assert irregular_widths.notes(made())[-1].startswith("Data fingerprint: 000")


def test_the_figure_marks_every_telling_and_draws_what_there_is() -> None:
    with drawing("test"):
        drawn = figure.build(made())
        assert drawn is not None
        losses, points = drawn.axes
        marks = [line for line in losses.lines if line.get_marker() in figure.MARKS.values()]
        assert sorted((float(line.get_xdata()[0]), line.get_marker()) for line in marks) == [
            (25.0, "^"), (60.0, "o"), (105.0, "s"),
        ]  # fmt: skip
        assert {text.get_text() for text in points.texts} == {"dense", "multiples of 8", "one index less"}
        only_losses = figure.build([record for record in made() if record.method != "irregular_widths"])
        assert only_losses is not None and len(only_losses.axes) == 1
    assert figure.build([]) is None and table.build([]).empty and irregular_widths.build([]).empty
