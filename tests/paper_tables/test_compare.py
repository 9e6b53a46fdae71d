"""The table and the plots of compressed models, and what a compression costs."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.axes import Axes

from paper_tables.analysis.missing_runs import unfinished
from paper_tables.drawing.compression_panels import COSTS, pareto
from paper_tables.drawing.style import clipped, drawing
from paper_tables.item import records_of
from paper_tables.methods import described_by
from paper_tables.tables import compare, compare_perplexity, pruning_cost
from results import RunRecord
from tests.results.compare_records import COMPARED
from tests.results.factory import make_record


@pytest.fixture(scope="module")
def records(made_up: tuple[RunRecord, ...]) -> list[RunRecord]:
    return list(made_up)


def key_of(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.get_legend().get_texts()]


def test_every_method_stands_at_every_size_of_its_model(records: list[RunRecord]) -> None:
    table = compare.build(records_of(compare.ITEM, records))
    assert len(table) == 3 * (2 + 2 * len(COMPARED))
    wanda = table[(table.Model == "gpt2") & (table.Method == "Wanda") & (table["Blocks kept"] == "50%")].iloc[0]
    assert (wanda["Stored in blocks"], wanda["Non-zero in blocks"], wanda["Effective in blocks"]) == (
        "800.0 k", "400.0 k", "388.0 k",
    )  # fmt: skip
    assert wanda["Forward FLOPs / dense"] == "1.000" and wanda["Seeds"] == "3"
    by_pattern = table[(table.Model == "gpt2") & (table.Method == "Wanda 2:4")].iloc[0]
    assert by_pattern["Blocks kept"] == "51%"
    assert table[(table.Model == "gpt2") & (table.Method == "dense")].iloc[0]["Blocks kept"] == "all"


def test_the_short_table_has_a_column_per_size_and_the_best_first(records: list[RunRecord]) -> None:
    table = compare_perplexity.build(records_of(compare_perplexity.ITEM, records))
    assert [*table.columns] == ["Model", "Method", "Removes", "100%", "80%", "50%", "Seeds", "Records"]
    own = table[table.Model == "gpt2"]
    assert len(own) == len(COMPARED) + 2 and own.iloc[0]["Method"] == "dense" and own.iloc[0]["80%"] == "-"
    scores = [float(text.split()[0]) for text in own.iloc[1:]["50%"]]
    assert scores == sorted(scores)
    pattern = own[own.Method == "Wanda 2:4"].iloc[0]
    assert (pattern["100%"], pattern["80%"]) == ("-", "-") and pattern["50%"] != "-"
    kinds = dict(zip(own["Method"], own["Removes"], strict=True))
    assert (kinds["dense"], kinds["Wanda"], kinds["Wanda-sp"], kinds["K-OBD"]) == (
        "nothing", "zeros", "structures", "structures",
    )  # fmt: skip


def test_sizes_of_one_model_are_blank_in_the_rows_of_another_and_the_real_one_is_first() -> None:
    made = [
        make_record(
            number, {"perplexity": 30.0, "block_share": size}, experiment="compare", method="flap", target=size,
            model={"name": name},
        )
        for number, (name, size) in enumerate((("gpt2", 0.8), ("SmolLM2-135M-Instruct", 0.95)))
    ]  # fmt: skip
    table = compare_perplexity.build(made)
    assert list(table.Model) == ["SmolLM2-135M-Instruct", "gpt2"]
    assert (list(table["95%"]), list(table["80%"])) == (["30.00", "-"], ["-", "30.00"])


def test_a_size_that_was_missed_stands_beside_the_number() -> None:
    records = [
        make_record(
            number, {"perplexity": 30.0, "block_share": share}, experiment="compare", method=method, target=0.7,
            model={"name": "gpt2"},
        )
        for number, (method, share) in enumerate({"shortgpt": 0.75, "flap": 0.704, "slicegpt": 0.65}.items())
    ]  # fmt: skip
    table = compare_perplexity.build(records)
    assert dict(zip(table["Method"], table["70%"], strict=True)) == {
        "ShortGPT": "30.00 at 75%", "FLAP": "30.00", "SliceGPT": "30.00 at 65%",
    }  # fmt: skip
    full = compare.build(records)
    assert dict(zip(full["Method"], full["Blocks kept"], strict=True)) == {
        "ShortGPT": "70%, is 75%", "FLAP": "70%", "SliceGPT": "70%, is 65%",
    }  # fmt: skip


def test_notes_name_calibration_and_protocol_of_each_model(records: list[RunRecord]) -> None:
    notes = compare.notes(records_of(compare.ITEM, records))
    for model in ("gpt2", "stories260K", "llama"):
        assert any(note.startswith(f"{model}. Calibration: 128 sequences of 64 tokens") for note in notes)
    assert sum(note.startswith("Protocol:") for note in notes) == 3


def test_a_row_per_kind_of_method_and_a_panel_per_cost(records: list[RunRecord]) -> None:
    with drawing("test"):
        figure = pareto(records_of(compare.ITEM, records), "gpt2")
    assert figure is not None
    rows = [figure.axes[start : start + len(COSTS)] for start in range(0, len(figure.axes), len(COSTS))]
    assert [panel.get_xlabel() for panel in rows[-1]] == [text for _, text in COSTS]
    assert [row[0].get_title(loc="left") for row in rows] == [
        "selection ablation", "structures by gradients", "structures by activations or weights", "masks",
    ]  # fmt: skip
    keys = [key_of(row[-1]) for row in rows]
    assert all({"EcoSpa", "dense"} <= {*names} for names in keys) and "Wanda 2:4" in keys[-1]
    assert sum(len(names) - 2 for names in keys) == len(COMPARED) - 1 + 1  # EcoSpa in all, and Wanda 2:4
    for column in range(len(COSTS)):
        assert len({row[column].get_xlim() for row in rows}) == len({row[column].get_ylim() for row in rows}) == 1


def test_no_two_methods_of_a_panel_look_alike(records: list[RunRecord]) -> None:
    """Custom ones included, whose names alone would give some of them one look."""
    own = records_of(compare.ITEM, records)
    metrics = {"perplexity": 30.0, **{metric: 0.5 for metric, _ in COSTS}}
    fields = {"experiment": "compare", "model": {"name": "gpt2", "layers": 4}}
    own += [make_record(5000 + n, metrics, method=f"custom_{n}", **fields) for n in range(12)]
    with described_by(own), drawing("test"):
        figure = pareto(own, "gpt2")
    assert figure is not None and len(figure.axes) == 5 * len(COSTS)
    for panel in figure.axes[len(COSTS) - 1 :: len(COSTS)]:
        handles = panel.get_legend().legend_handles
        looks = [(handle.get_color(), handle.get_marker()) for handle in handles]  # type: ignore[union-attr]
        assert len(set(looks)) == len(looks) > 3


def test_another_model_has_no_figure(records: list[RunRecord]) -> None:
    with drawing("test"):
        assert pareto(records, "another") is None


def test_one_method_that_is_far_worse_hides_nothing() -> None:
    scores = {f"method_{n}": 60.0 + n for n in range(20)} | {"wild": 5000.0}
    records = [
        make_record(
            n, {"perplexity": score, **{metric: 0.5 for metric, _ in COSTS}}, experiment="compare", method=method,
            model={"name": "gpt2"},
        )
        for n, (method, score) in enumerate(scores.items())
    ]  # fmt: skip
    with drawing("test"):
        figure, plain = pareto(records, "gpt2"), pareto(records[:-1], "gpt2")
    assert figure is not None and plain is not None
    assert figure.axes[0].get_ylim()[1] < 130 and key_of(figure.axes[-1])[0] == "wild (above)"
    assert plain.axes[0].get_ylim()[1] == pytest.approx(79 * 1.04)


def test_a_newcomer_stands_in_table_and_plot() -> None:
    metrics = {"perplexity": 30.0, **{metric: 0.5 for metric, _ in COSTS}}
    record = make_record(1, metrics, experiment="compare", method="mine", model={"name": "gpt2"})
    assert compare.build([record]).iloc[0]["Method"] == "mine"
    with drawing("test"):
        figure = pareto([record], "gpt2")
    assert figure is not None and key_of(figure.axes[-1]) == ["mine"]


def test_costs_stand_in_order_and_failures_give_their_own_error(records: list[RunRecord]) -> None:
    table = pruning_cost.build(records_of(pruning_cost.ITEM, records))
    assert len(table) == len(COMPARED)
    failed = table[table.Method == "Torch-Pruning"].iloc[0]
    assert failed["Error"] == "3 seeds failed: RuntimeError: nothing was | removed" and failed["Time"] == "-"
    assert table.iloc[0]["Method"] == "EcoSpa" and table.iloc[0]["Time"].endswith("ms")
    assert list(table.iloc[:3]["Method"]) == ["EcoSpa", "K-OBD", "FLAP"]


def costs(number: int, status: str, **changes: Any) -> RunRecord:
    error = "Traceback\nMemoryError: full" if status == "failed" else None
    fields = {"experiment": "pruning_cost", "method": "flap", "model": {"name": "gpt2"}, **changes}
    return make_record(number, {"compression_time": 0.2}, status=status, error=error, **fields)


def test_a_model_on_which_everything_failed_and_a_seed_that_did_are_shown() -> None:
    records = [
        costs(0, "finished", seed=0),
        costs(1, "failed", seed=1),
        costs(2, "failed", seed=2),
        costs(3, "failed", seed=0),  # went well the second time
        costs(4, "failed", model={"name": "vit"}),
    ]
    table = pruning_cost.build(records)
    assert list(zip(table["Model"], table["Error"], strict=True)) == [
        ("gpt2", "2 seeds failed: MemoryError: full"),
        ("vit", "1 seed failed: MemoryError: full"),
    ]
    assert list(table["Tier"]) == ["smoke", "smoke"]


def test_a_method_that_never_finished_is_named_below_a_table() -> None:
    done = make_record(0, {"perplexity": 1.0}, experiment="compare", method="flap")
    failed = {"experiment": "compare", "status": "failed", "error": "no"}
    records = [
        done,
        make_record(1, method="flap", seed=1, **failed),  # the cell has another seed
        *(make_record(2 + seed, method="slicegpt", seed=seed, target=0.3, **failed) for seed in (0, 1)),
        make_record(8, method="wanda", **{**failed, "experiment": "another"}),
    ]
    assert unfinished(compare.ITEM, records) == ("Not finished: SliceGPT at 30% (2 failed).",)
    assert unfinished(compare.ITEM, [done]) == () and unfinished(pruning_cost.ITEM, records) == ()


def test_only_the_lower_half_of_a_bar_is_clipped() -> None:
    assert clipped([10.0, 10.0], [2.0, 30.0]) == ([2.0, 9.0], [2.0, 30.0])
    records = [
        make_record(
            seed, {"perplexity": 10.0 + 20 * seed, **{metric: 0.5 for metric, _ in COSTS}}, experiment="compare",
            seed=seed, model={"name": "gpt2"},
        )
        for seed in range(2)
    ]  # fmt: skip
    with drawing("test"):
        figure = pareto(records, "gpt2")
    assert figure is not None
    (_, low), (_, high) = figure.axes[0].collections[0].get_segments()[0]  # type: ignore[attr-defined]
    # mean 20, half width 12.7062 * 14.1421 / sqrt(2) = 127.062
    assert (low, high) == pytest.approx((2.0, 147.062))


def test_tables_that_do_not_ask_for_failures_see_none(records: list[RunRecord]) -> None:
    assert all(record.status == "finished" for record in records_of(compare.ITEM, records))
    assert any(record.status == "failed" for record in records_of(pruning_cost.ITEM, records))
