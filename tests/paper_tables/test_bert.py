"""Tables, figure and claim of BERT: cells by K and theta and by task, what reads nothing beside what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paper_tables.analysis.curves import panels_of
from paper_tables.analysis.fine_tuning_grid import PAPER, SQUAD, one_pair, surface
from paper_tables.claims.grid_judges import smaller_k_is_better
from paper_tables.drawing.style import drawing
from paper_tables.figures import k_theta_squad, k_theta_sst2, loss_curves, memory_over_steps, size_over_steps
from paper_tables.item import RECORDS
from paper_tables.tables import bert_glue, bert_squad, bert_sst2
from results import Metric, RunRecord
from tests.results.factory import make_record


@pytest.fixture(scope="module")
def records(made_up: tuple[RunRecord, ...]) -> list[RunRecord]:
    return [record for record in made_up if record.status == "finished"]


def of(records: list[RunRecord], experiment: str) -> list[RunRecord]:
    return [record for record in records if record.experiment == experiment]


def replace_size(record: RunRecord, blocks: float) -> RunRecord:
    """The same record with another number of block parameters."""
    return replace(record, metrics={**record.metrics, "block_parameters": Metric(blocks, "", False)})


def surface_record(number: int, k: float, theta: float, f1: float, **changes: Any) -> RunRecord:
    pair = {"top_k": k, "importance_threshold": theta}
    method = changes.pop("method", "ecospa_own_pace")
    metrics = {"f1": f1, "block_parameters": changes.pop("blocks", 400_000.0)}
    return make_record(number, metrics, experiment="bert_squad", method=method, method_config=pair, **changes)


def test_every_pair_of_k_and_theta_is_a_row(records: list[RunRecord]) -> None:
    table = bert_squad.build(of(records, "bert_squad"))
    assert list(table["Method"]) == ["dense", "EcoSpa", "movement", "small dense", *["EcoSpa, own pace"] * 9]
    row = table[(table["K"] == "0.10") & (table["Theta"] == "0.95")].iloc[0]
    # 20 - 0.4 + 1.9 + 0.1 on average, half width 4.3027 * 0.1 / sqrt(3)
    assert row["F1"] == "21.60 ± 0.25" and row["Seeds"] == "3" and row["Blocks kept"] == "50%"
    assert len(row[RECORDS].split()) == 3
    assert table.iloc[0]["K"] == "-" and table.iloc[0]["Minus dense"] == "-"
    assert row["Minus dense"].startswith("-4.1") and row["Minus dense"].endswith("]")  # 21.60 - 25.70, seed by seed
    notes = bert_squad.notes(of(records, "bert_squad"))
    assert "exact match 1.000, F1 4.000" in notes[0] and notes[1].startswith("Nothing is decided here: the dense model")
    assert "nn_pruning, 59% removed, 1.84x 88.72" in notes[-1] and "[V]" in notes[-1]


def test_cells_of_other_data_or_models_stay_out(records: list[RunRecord]) -> None:
    own = of(records, "bert_squad")
    other = surface_record(5000, 0.7, 0.5, 99.0, data={"source": "squad", "configuration": "other"})
    assert (0.7, 0.5) not in surface([*own, other]) and len(surface([*own, other])) == 9
    assert not any("left out" in note or "not in this table" in note for note in bert_squad.notes(own))


def test_tasks_are_columns_and_what_reads_nothing_is_a_row(records: list[RunRecord]) -> None:
    table = bert_glue.build(of(records, "bert_glue"))
    assert list(table["Method"]) == [bert_glue.CONSTANT, "dense", "EcoSpa", "movement"]
    columns = ["SST-2 (accuracy)", "MRPC (F1/accuracy)", "Mean"]
    assert list(table.iloc[0][columns]) == ["50.00", "74.50", "62.2"]
    assert list(table.iloc[2][columns]) == ["79.5 ± 1.2", "79.5 ± 1.2", "79.5"]
    assert table.iloc[2]["Final step / dense"] == "0.80 to 0.80" and table.iloc[2]["Seeds"] == "3"
    assert len(table.iloc[2][RECORDS].split()) == 6
    notes = bert_glue.notes(of(records, "bert_glue"))
    assert [note.split(":")[0] for note in notes] == ["SST-2", "MRPC", "Published for BERT-base from trained weights"]


def test_a_task_that_was_not_run_leaves_a_gap_and_no_mean(records: list[RunRecord]) -> None:
    own = of(records, "bert_glue")
    missing = [r for r in own if (r.method, r.config["data"]["configuration"]) != ("movement", "mrpc")]
    row = bert_glue.build(missing).iloc[3]
    assert row["MRPC (F1/accuracy)"] == "-" and row["Mean"] == "-" and row["SST-2 (accuracy)"] != "-"


def test_nothing_without_records() -> None:
    assert bert_squad.build([]).empty and bert_glue.build([]).empty and k_theta_squad.build([]) is None
    assert bert_squad.notes([]) == bert_glue.notes([]) == k_theta_squad.notes([]) == ()
    only = make_record(experiment="bert_squad", method="dense", target=None, metrics={"f1": 1.0})
    assert k_theta_squad.build([only]) is None and len(bert_squad.build([only])) == 1


def test_the_figure_shows_the_means(records: list[RunRecord]) -> None:
    with drawing("test"):
        figure = k_theta_squad.build(of(records, "bert_squad"))
    assert figure is not None
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.texts][:3] == ["21.1\n± 0.2", "21.5\n± 0.2", "21.6\n± 0.2"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["0.10", "0.30", "0.50"]
    notes = k_theta_squad.notes(of(records, "bert_squad"))
    assert notes[0].startswith("Seeds per cell: 3, half the width of their 95% interval 0.25 to 0.25")
    assert "dense 25.70 ± 0.25" in notes[1] and "the first words of the context 4.000" in notes[1]


def test_a_task_that_the_dense_model_masters_is_not_refused(records: list[RunRecord]) -> None:
    own = of(records, "bert_sst2")
    assert len(bert_sst2.build(own)) == 12 and "accuracy 50.9" in bert_sst2.notes(own)[0]
    assert not any("Nothing is decided" in note for note in bert_sst2.notes(own))
    with drawing("test"):
        figure = k_theta_sst2.build(own)
    assert figure is not None and figure.axes[1].get_title(loc="left").startswith("Accuracy minus that of dense, 88.55")


def test_what_it_took_and_unequal_sizes_stand_below(records: list[RunRecord]) -> None:
    own = of(records, "bert_squad")
    first = next(record for record in own if record.method == "ecospa_own_pace")
    uncut = [replace(record, plan_history=first.plan_history[:1]) if record is first else record for record in own]
    with drawing("test"):
        equal, figure = k_theta_squad.build(own), k_theta_squad.build(uncut)
        alone = k_theta_squad.build([surface_record(1, 0.3, 0.9, 5.0)])
    assert equal is not None and figure is not None and alone is not None
    titles = [
        [axis.get_title(loc="left") for axis in one.axes if axis.get_title(loc="left")] for one in (figure, equal)
    ]
    distance = "F1 minus that of dense, 25.70 ± 0.25"
    assert titles == [["F1", distance, "training FLOPs", "blocks kept"], ["F1", distance, "training FLOPs"]]
    # 0.5 + 0.4 * 0.9 * 0.7 of the dense run
    assert figure.axes[2].texts[0].get_text() == "75%" and figure.axes[3].texts[-1].get_text() == "50%"
    assert [axis.get_title(loc="left") for axis in alone.axes if axis.get_title(loc="left")] == ["F1"]


@pytest.mark.parametrize(
    ("small", "large", "kind"),
    [
        ((30.0, 31.0, 32.0), (20.0, 21.5, 22.0), "direction holds at reduced scale"),
        ((20.0, 21.5, 22.0), (30.0, 31.0, 32.0), "not reproduced"),
        ((20.0, 25.0, 22.0), (21.0, 21.0, 26.0), "cannot tell apart"),
    ],
)
def test_the_claim_of_k_is_about_trained_weights(
    small: tuple[float, ...], large: tuple[float, ...], kind: str, records: list[RunRecord]
) -> None:
    judge = smaller_k_is_better(SQUAD)
    verdict = judge(of(records, "bert_squad"), "cpu")
    assert verdict.kind == "not run" and "run bert_squad --tier cpu" in verdict.detail
    model = {"layers": 12, "weights": "sha256:00"}
    made = [
        surface_record(7000 + 10 * number + seed, k, 0.9, f1, seed=seed, model=model)
        for number, (k, sample) in enumerate(((0.1, small), (0.5, large)))
        for seed, f1 in enumerate(sample)
    ]

    def dense(f1: float) -> list[RunRecord]:
        fields = {"method": "dense", "target": None, "model": model, "experiment": "bert_squad"}
        return [make_record(7900 + seed, {"f1": f1}, seed=seed, **fields) for seed in range(3)]

    verdict = judge([*made, *dense(30.0)], "paper")
    assert verdict.kind == "cannot decide here" and "the dense model hardly answers: F1 30.00" in verdict.detail
    verdict = judge([*of(records, "bert_squad"), *made, *dense(60.0)], "paper")
    assert verdict.kind == kind and verdict.n == 3
    unequal = [replace_size(record, 500_000.0) if record in made[3:] else record for record in made]
    assert judge(unequal, "paper").kind == "not run" and "down to one size" in judge(unequal, "paper").detail
    mean = sum(small) / 3 - sum(large) / 3
    assert verdict.measured.startswith(f"F1 {mean:+.2f}"[:7]) and set(verdict.records) == {record.id for record in made}


def test_curves_over_steps_show_the_papers_pair_and_say_so(records: list[RunRecord]) -> None:
    curve = tuple((step, 5.0 - step / 50) for step in range(10, 101, 10))
    own = [replace(record, loss_curve=curve) for record in of(records, "bert_squad")]
    (panel,) = panels_of(own)
    shown = [cell for cell in panel.cells if cell.method == "ecospa_own_pace"]
    pairs = [cell.records[0].config["method_config"] for cell in shown]
    assert pairs == [{"top_k": PAPER[0], "importance_threshold": PAPER[1]}]
    for item in (loss_curves.ITEM, size_over_steps.ITEM, memory_over_steps.ITEM):
        assert item.notes(own) == ("Curves over steps show EcoSpa, own pace at K 0.30 and theta 0.90 alone.",)
        assert item.notes(of(records, "bert_glue")) == ()
    smoke = [surface_record(1, 0.1, 0.7, 5.0), surface_record(2, 0.3, 0.95, 5.0)]
    assert one_pair(smoke) == smoke[1:]  # the nearest one, where the paper's own was not run


def test_all_tasks_of_a_table_have_one_model() -> None:
    def glue(number: int, task: str, method: str, weights: str | None) -> RunRecord:
        fields = {"data": {"source": "glue", "configuration": task}, "model": {"layers": 3, "weights": weights}}
        return make_record(number, {"score": 80.0}, experiment="bert_glue", method=method, **fields)

    fresh = [glue(i, task, method, None) for i, (task, method) in enumerate((("sst2", "ecospa"), ("mrpc", "ecospa")))]
    # more cells of one task, fewer over all
    trained = [glue(10, "sst2", "ecospa", "sha256:00"), glue(11, "sst2", "movement", "sha256:00")]
    found = bert_glue.by_task([*fresh, glue(5, "mrpc", "movement", None), *trained])
    models = {str(record.config["model"]) for cells in found.values() for cell in cells for record in cell.records}
    assert set(found) == {"sst2"} and len(models) == 1  # trained weights stand before any number of fresh ones
    found = bert_glue.by_task([*fresh, glue(5, "mrpc", "movement", None)])
    assert set(found) == {"sst2", "mrpc"}


def test_the_report_holds_them(rendered_store: Path) -> None:
    assert {"bert_squad.md", "bert_sst2.md", "bert_glue.md", "k_theta_squad.png", "k_theta_sst2.png"} <= {
        path.name for path in rendered_store.iterdir()
    }
