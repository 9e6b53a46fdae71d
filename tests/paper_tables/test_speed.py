"""Speeds and bytes in tables and figures: every point has its row, what is slower or missed says so."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd
import pytest

from paper_tables.analysis.speed import PHASES, SLOWER, points
from paper_tables.drawing.style import drawing
from paper_tables.figures import (
    memory_by_category,
    roofline,
    speed_against_length,
    speed_against_size,
    throughput_against_batch,
)
from paper_tables.item import RECORDS, records_of
from paper_tables.tables import inference_speed, predictions, time_over_flops, training_memory, training_speed
from results import RunRecord
from tests.results.factory import make_record
from tests.results.speed_records import memories, speed_run, speeds

MODES = ("plain", "merged")


def made(*fields: Any) -> list[RunRecord]:
    return [make_record(number, **one) for number, one in enumerate(itertools.chain(*fields))]


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    return made(speeds(2), memories(2))


def rows(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    for column, value in wanted.items():
        table = table[table[column.replace("_", " ")] == value]
    return table


def test_every_model_size_and_batch_has_a_row_of_its_own(records: list[RunRecord]) -> None:
    table = training_speed.build(records_of(training_speed.ITEM, records))
    assert len(table) == 4 * 5 + 2 and set(table["Seeds"]) == {"2"}
    (row,) = rows(table, Mode="plain", Model="GPT-2", Blocks_kept="50%", Batch="4").to_dict("records")
    assert row["FLOPs / dense"] == "0.5500" and row["Time / FLOPs"].startswith("1.02")
    assert row["Dense step"] == "400.0 ms"


def test_a_model_that_is_compressed_but_slower_is_marked(records: list[RunRecord]) -> None:
    table = training_speed.build(records_of(training_speed.ITEM, records))
    slower = table[table["Remark"] == SLOWER]
    assert list(zip(slower["Model"], slower["Blocks kept"], strict=True)) == [("ViT", "30%")]
    read = inference_speed.build(records_of(inference_speed.ITEM, records))
    slower = read[read["Remark"] == SLOWER]
    assert list(zip(slower["Model"], slower["Blocks kept"], strict=True)) == [("ViT", "30%")]
    assert set(rows(read, Phase="decode")["Model"]) == {"GPT-2", "LLaMA"}


def test_another_mode_has_a_row_of_its_own_and_no_place_in_the_figures(records: list[RunRecord]) -> None:
    table = inference_speed.build(records_of(inference_speed.ITEM, records))
    plain, merged = (rows(table, Mode=mode, Phase="decode", Blocks_kept="50%", Batch="4") for mode in MODES)
    assert list(merged["Mode / plain"]) == ["0.9000"] * 2 and list(plain["Mode / plain"]) == ["-"] * 2
    trained = training_speed.build(records_of(training_speed.ITEM, records))
    fused = rows(trained, Mode="fused")
    assert list(fused["Mode / plain"]) == ["0.7800"] * 2 and list(fused["Mode / plain, dense"]) == ["0.8000"] * 2
    assert set(fused["Estimator / step"]) == {"-"}
    only = [r for r in records if r.config["protocol"].get("mode")]
    assert only and speed_against_size.build(only) is None and throughput_against_batch.build(only) is None


def test_time_over_operations_stands_beside_its_aim_in_every_phase(records: list[RunRecord]) -> None:
    chosen = records_of(time_over_flops.ITEM, records)
    table = time_over_flops.build(chosen)
    assert list(table["Phase"]) == ["training"] * 4 + ["prefill"] * 4 + ["decode"] * 2
    assert set(table["Batch"]) == {"4"} and set(table["Mode"]) == {"plain"}  # fused and merged are not shown
    (llama,) = rows(table, Phase="training", Model="LLaMA").to_dict("records")
    assert [llama[size] for size in ("70%", "50%", "30%")] == ["1.040 ± 0.006"] * 3
    assert (llama["Aim"], llama["Missed at"]) == ("1.05", "-")
    (bert,) = rows(table, Phase="training", Model="BERT").to_dict("records")
    assert bert["Missed at"] == "70%, 50%, 30%"
    (vit,) = rows(table, Phase="prefill", Model="ViT").to_dict("records")
    assert (vit["Aim"], vit["Missed at"]) == ("1.10", "30%")
    assert llama["Seeds"] == "2" and len(llama[RECORDS].split()) == 6
    assert time_over_flops.build([]).empty


def test_compiled_models_have_rows_of_their_own_and_sizes_that_were_not_measured_stay_open() -> None:
    plain, compiled = {"phase": "prefill", "batch": 4}, {"phase": "prefill", "batch": 4, "mode": "compiled"}
    fields = [
        {**speed_run("inference_speed", "bert", target, 0, **protocol), "metrics": metrics}
        for target, protocol, metrics in (
            (0.5, plain, {"latency_over_flops": 1.08}),
            (0.3, plain, {"latency_over_flops": 1.2}),
            (0.3, compiled, {"latency_over_flops": 0.9, "plain_latency_over_flops": 1.3}),
            (0.5, compiled, {"latency_over_flops": 0.8}),  # from before plain models took turns with compiled ones
        )
    ]
    table = time_over_flops.build(made(fields))
    assert list(table["Mode"]) == ["plain", "compiled", "plain next to compiled"]
    assert list(table["30%"]) == ["1.200", "0.9000", "1.300"]
    assert list(table["50%"]) == ["1.080", "0.8000", "-"]
    assert list(table["Missed at"]) == ["30%", "-", "30%"]


def test_long_texts_have_rows_of_their_own(records: list[RunRecord]) -> None:
    table = inference_speed.build(records_of(inference_speed.ITEM, records))
    found = rows(table, Phase="prefill", Blocks_kept="50%", Batch="1")
    assert list(rows(found, Model="BERT")["Tokens"]) == ["128", "512", "2048"]
    assert list(rows(found, Model="ViT")["Tokens"]) == ["-"]
    (note,) = [note for note in inference_speed.ITEM.notes(records) if note.startswith("BERT")]
    assert "width 512" in note and "length" not in note  # sizes that all rows have in common
    assert "None" not in note and "patch" not in note  # and that a text has


def test_peak_average_and_end_stand_apart_and_a_budget_has_its_row(records: list[RunRecord]) -> None:
    table = training_memory.build(records_of(training_memory.ITEM, records))
    (free,) = rows(table, Model="BERT", Blocks_kept="50%", Budget="-").to_dict("records")
    (within,) = rows(table, Model="BERT", Blocks_kept="50%", Budget="70%").to_dict("records")
    assert free["Peak / dense"] == "1.000" and within["Peak / dense"] == "0.7000"
    assert free["At the end / dense"] == "0.7000" and 0.7 < float(free["Average / dense"]) < 1.0
    assert free["Optimizer"] == "40.00 MB"


def test_a_promise_is_kept_or_missed_by_its_mean_and_the_cpu_has_no_promise_for_peaks() -> None:
    far = [{**one, "metrics": {**one["metrics"], "foretold_step_time_ratio": 2.0}} for one in speeds(1)][:1]
    table = predictions.build(made(far, memories(1)))
    assert rows(table, What="step time / dense")["Promise"].tolist() == ["within 10%: MISSED"]
    assert set(rows(table, What="weights, gradients, optimizer")["Promise"]) == {"within 1%: kept"}
    assert set(rows(table, What="peak of a step at the end")["Promise"]) == {"none here"}
    on_gpu = [{**one, "protocol": {**one["protocol"], "device": "cuda"}} for one in memories(1)]
    table = predictions.build(made(on_gpu))
    assert set(rows(table, What="peak of a step at the end")["Promise"]) == {"within 10%: kept"}


HEADS_16 = {"qk": 16, "vo": 16, "ffn": 64}


def gpu_run(experiment: str, target: float | None, seed: int, multiple: Any, **metrics: float) -> dict[str, Any]:
    phase = "training" if experiment == "training_speed" else "prefill"
    method = "dense_aligned" if target is None else "ecospa"
    protocol = {"phase": phase, "batch": 32, "device": "cuda", "width_multiple": multiple}
    return {**speed_run(experiment, "llama", target, seed, method, **protocol), "metrics": metrics, "tier": "gpu"}


def on_gpu() -> list[RunRecord]:
    """Half of a LLaMA, its heads cut and whole, and the aligned dense one, which is faster than the dense one."""
    fields = []
    for seed in range(2):
        more = seed / 100
        fields += [
            gpu_run("training_speed", 0.5, seed, HEADS_16, step_time_ratio=0.3 + more, step_flops_ratio=0.5,
                    step_time_over_flops=0.6 + 2 * more, block_share=0.5),
            gpu_run("training_speed", 0.5, seed, 64, step_time_ratio=0.34, step_flops_ratio=0.5,
                    step_time_over_flops=0.68, block_share=0.5),
            gpu_run("training_speed", None, seed, HEADS_16, step_time_ratio=0.5 + more, step_flops_ratio=1.005,
                    step_time_over_flops=0.5, block_share=1.005),
            gpu_run("inference_speed", 0.5, seed, HEADS_16, throughput_ratio=3.0 + more, forward_flops_ratio=0.5,
                    latency_over_flops=2 / (3.0 + more), block_share=0.5),
            gpu_run("inference_speed", None, seed, HEADS_16, throughput_ratio=2.0, forward_flops_ratio=1.005,
                    latency_over_flops=0.5, block_share=1.005),
        ]  # fmt: skip
    return made(fields)


def test_ratios_to_the_dense_and_to_the_aligned_dense_model_stand_side_by_side() -> None:
    records = on_gpu()
    table = training_speed.build(records_of(training_speed.ITEM, records))
    names = list(table)
    assert names.index("Time / aligned dense") == names.index("Time / dense") + 1
    cut, whole, aligned = (rows(table, Widths=w, Blocks_kept=k).to_dict("records") for w, k in (
        ("16 heads, 64 FFN", "50%"), ("64", "50%"), ("16 heads, 64 FFN", "all")))  # fmt: skip
    assert pytest.approx(0.6039, abs=1e-4) == (0.3 / 0.5 + 0.31 / 0.51) / 2
    assert cut[0]["Time / aligned dense"].startswith("0.60")
    assert whole[0]["Time / aligned dense"].startswith("0.67"), "the control's widths are those of feed-forward layers"
    assert aligned[0]["Time / aligned dense"] == "-" and aligned[0]["Method"] == "dense, aligned"
    read = inference_speed.build(records_of(inference_speed.ITEM, records))
    (half,) = rows(read, Blocks_kept="50%").to_dict("records")
    assert half["Speed-up over dense"].startswith("3.00") and half["Speed-up over aligned dense"].startswith("1.50")
    assert "Widths" not in read  # all rows have the same
    assert all(note for note in training_speed.ITEM.notes(records))


def test_time_over_flops_is_shown_against_both_and_figures_mix_no_two_rules_of_widths() -> None:
    records = on_gpu()
    table = time_over_flops.build(records_of(time_over_flops.ITEM, records))
    assert list(zip(table["Phase"], table["Time over that of"], strict=True)) == [
        ("training", "dense"), ("training", "aligned dense"), ("prefill", "dense"), ("prefill", "aligned dense"),
    ]  # fmt: skip
    dense, aligned, *read = table.to_dict("records")
    assert dense["50%"].startswith("0.61") and aligned["50%"].startswith("1.2") and aligned["Missed at"] == "50%"
    assert read[0]["50%"].startswith("0.66") and read[1]["50%"].startswith("1.33")
    with drawing("test"):
        figure = speed_against_size.build(records)
    assert figure is not None
    measured = next(line for line in figure.axes[0].lines if line.get_marker() == "o")
    assert len(list(measured.get_xdata())) == 2  # the dense model and half of it, once


def test_more_turns_are_a_newer_measurement_of_the_same_point() -> None:
    (old,) = list(speeds(1))[:1]
    new = {**old, "protocol": {**old["protocol"], "turns": 30}}
    (point,) = points(made([old], [new]))
    assert [record.config["protocol"]["turns"] for record in point.cell.records] == [30]


def test_figures_draw_what_was_measured(records: list[RunRecord]) -> None:
    with drawing("test"):
        sizes = speed_against_size.build(records)
        assert sizes is not None and [axis.get_title(loc="left") for axis in sizes.axes] == [*PHASES.values()]
        measured = next(line for line in sizes.axes[0].lines if line.get_marker() == "o")
        assert [float(x) for x in measured.get_xdata()] == pytest.approx([1.0, 0.7, 0.5, 0.3], abs=0.02)  # type: ignore[arg-type]
        assert [line.get_marker() for line in sizes.axes[0].lines].count("x") == 1  # the ViT that is slower
        explained = [text.get_text() for text in sizes.axes[0].get_legend().get_texts()]
        assert explained == ["measured time, n = 2 seeds, 95% interval", "FLOPs alone"]
        bars = sizes.axes[0].containers
        assert len(bars) == 4 and all(bar.has_yerr for bar in bars)  # type: ignore[attr-defined]
        lengths = speed_against_length.build(records)
        assert lengths is not None and [axis.get_title(loc="left") for axis in lengths.axes] == [PHASES["prefill"]]
        lines = [line for line in lengths.axes[0].lines if line.get_marker() == "o"]
        assert len(lines) == 3 and [list(line.get_xdata()) for line in lines] == [[128, 512, 2048]] * 3
        assert list(lines[0].get_ydata()) == sorted(lines[0].get_ydata())
        batches = throughput_against_batch.build(records)
        assert batches is not None and len(batches.axes) == 3
        drawn = next(line for line in batches.axes[1].lines if line.get_marker() == "o")
        assert list(drawn.get_xdata()) == [1, 4, 16]  # long texts, of which one was read at a time, stand elsewhere
        steps = memory_by_category.build(records)
        assert steps is not None and len(steps.axes) == 4 * 2
        roof = roofline.build(records)
        assert roof is not None and [line.get_marker() for line in roof.axes[0].lines].count("*") == 4 * 5


def test_categories_of_the_peak_add_up_to_it(records: list[RunRecord]) -> None:
    own = [record for record in records if record.experiment == "training_memory"][2:4]
    with drawing("test"):
        figure = memory_by_category.build(own)
    assert figure is not None
    record = own[0]
    tops = [float(area.get_paths()[0].vertices[:, 1].max()) for area in figure.axes[0].collections]  # type: ignore[attr-defined]
    assert max(tops) == pytest.approx(max(row["peak"] for row in record.payload["steps"]) / 1e6)
