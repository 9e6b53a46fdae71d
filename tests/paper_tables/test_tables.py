"""The tables hold what the records hold, and nothing else."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from paper_tables.item import RECORDS, Table
from paper_tables.report.writers import html, latex, markdown, plain
from paper_tables.tables import (
    claims,
    controls,
    coupled_vs_uncoupled,
    deit_imagenet,
    image_controls,
    llama_pretraining,
    pretrained_shrink,
    published_numbers,
    vit_cifar10,
)
from results import RunRecord
from tests.results.factory import make_record
from tests.results.regime_records import sized


def training() -> list[RunRecord]:
    values = {"ecospa": (10.0, 12.0, 14.0), "uncoupled": (11.0, 13.0, 15.0), "dense": (9.0, 13.5, 14.0)}
    return [
        make_record(
            10 * place + seed,
            {"perplexity": value, "block_parameters_nonzero": 400_000, "step_time": 0.05},
            method=method,
            seed=seed,
            target=None if method == "dense" else 0.5,
        )
        for place, (method, sample) in enumerate(values.items())
        for seed, value in enumerate(sample)
    ]


def small() -> list[RunRecord]:
    """Small dense models, worse than those of `training`: size matters."""
    values = (18.0, 27.5, 28.0)
    return [make_record(900 + s, {"perplexity": v}, method="small_dense", seed=s) for s, v in enumerate(values)]


def cell(table: pd.DataFrame, row: int, column: str) -> str:
    return str(table.iloc[row][column])


def test_the_main_table_shows_means_intervals_and_provenance() -> None:
    records = training()
    table = coupled_vs_uncoupled.build(records)
    assert list(table["Method"]) == ["dense", "EcoSpa", "uncoupled indices"]
    # mean 12, half width 4.9683: two digits of the interval
    assert cell(table, 1, "Perplexity") == "12.0 ± 5.0"
    assert cell(table, 1, "Non-zero in blocks") == "400.0 k"
    assert cell(table, 1, "Step time") == "50.00 ms"
    assert cell(table, 1, "Blocks kept") == "50%" and cell(table, 0, "Blocks kept") == "all"
    assert cell(table, 1, "Seeds") == "3" and cell(table, 1, "Device") == "Test CPU"
    assert cell(table, 1, RECORDS).split() == [record.id for record in records[:3]]


def test_a_number_without_record_does_not_appear() -> None:
    table = coupled_vs_uncoupled.build(training())
    assert "Bits/byte" not in table and "Peak memory" not in table
    mixed = [*training(), make_record(90, {"bits_per_byte": 1.5}, method="magnitude")]
    column = coupled_vs_uncoupled.build(mixed)["Bits/byte"]
    assert list(column) == ["-", "-", "-", "1.500"]
    assert coupled_vs_uncoupled.build([]).empty


def test_controls_are_paired_by_seed() -> None:
    table = controls.build([*training(), *small()])
    assert list(table["EcoSpa against"]) == ["dense", "uncoupled indices", "small dense"]
    # perplexities differ by 1, -1.5, 0: mean -0.1667; dense is better than small dense, so that the others count
    assert cell(table, 0, "Perplexity") == "-0.167" and cell(table, 0, "Part") == "size alone"
    assert cell(table, 0, "Reading") == "cannot tell apart"
    # ln(10/11), ln(12/13), ln(14/15): mean -0.0814, s = 0.0132, 4.3027 * 0.0132 / sqrt(3) = 0.0328
    assert cell(table, 1, "Nats per token") == "-0.0814 [-0.1143, -0.0486]"
    assert (cell(table, 1, "Part"), cell(table, 1, "Detectable")) == ("alignment", "0.041")
    # alone p = 0.0087 with two degrees of freedom; the smallest of three
    assert cell(table, 1, "Holm") == "p=0.026" and cell(table, 1, "Reading") == "EcoSpa better"
    assert len(cell(table, 1, RECORDS).split()) == 6


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        ((20.0, 21.0, 22.5), "EcoSpa better"),
        ((5.0, 6.0, 7.5), "EcoSpa worse"),
        ((9.0,), "not run (n too small: needs 3 seeds, has 1)"),
    ],
)
def test_readings_of_a_difference(sample: tuple[float, ...], text: str) -> None:
    theirs = [make_record(50 + s, {"perplexity": v}, method="magnitude", seed=s) for s, v in enumerate(sample)]
    assert cell(controls.build([*training()[:3], *theirs, *sized(900)]), 1, "Reading") == text


def test_own_target_is_compared_with_its_own_target_only() -> None:
    other = make_record(80, {"perplexity": 1.0}, method="small_dense", target=0.3)
    assert "small dense" not in list(controls.build([*training(), other])["EcoSpa against"])


def test_stages_are_joined_by_their_number() -> None:
    records = [
        make_record(
            seed,
            {"perplexity_before": 4.0},
            experiment="pretrained_shrink",
            seed=seed,
            model={"pretrained": "stories260K"},
            payload={
                "stages": [
                    {"size": 1.0, "parameters": 100, "perplexity_cut": 4.0, "perplexity_recovered": 4.0},
                    {"size": 0.5 + 0.002 * seed, "parameters": 60, "perplexity_cut": 8.0, "perplexity_recovered": 6.0},
                ],
                "prompt": "Once",
                "text_after": "Once | upon\na *time*",
            },
        )
        for seed in range(3)
    ]
    table = pretrained_shrink.build(records)
    assert list(table["Blocks kept"]) == ["100%", "50.2%"]
    assert list(table["Won back"]) == ["0.0%", "25.0%"]
    assert list(table["Seeds"]) == ["3", "3"]
    notes = pretrained_shrink.notes(records)
    assert "stories260K. Continuation after: Once | upon a *time*" in notes
    assert notes[0] == "stories260K. before any cut: perplexity 4.000."
    real = [
        make_record(
            90 + record.seed, experiment="pretrained_shrink", seed=record.seed, payload=record.payload,
            model={"pretrained": "SmolLM2-135M-Instruct"},
        )
        for record in records
    ]  # fmt: skip
    assert list(pretrained_shrink.build([*records, *real])["Model"]) == 2 * ["SmolLM2-135M-Instruct"] + 2 * [
        "stories260K"
    ]  # the real one first
    assert pretrained_shrink.build([]).empty and pretrained_shrink.notes([]) == ()


def test_claims_and_published_numbers_are_always_there() -> None:
    table = claims.build([*training(), *small()])
    row = table[table["Claim"].str.startswith("Removing coupled indices") & table["Claim"].str.contains("50%")].iloc[0]
    assert row["Verdict"] == "direction holds at reduced scale (n=3, Holm p=0.026 of 3)"
    assert row["Measured"] == "-0.0814 [-0.1143, -0.0486] nats (perplexity -1); detectable 0.041"
    assert set(claims.build([])["Verdict"]) == {"not run (needs records)"}
    assert "--tier cpu" in " ".join(verdict.text for _, verdict in claims.judged([], "cpu"))
    assert len(published_numbers.build([])) > 40


def example() -> tuple[Table, pd.DataFrame]:
    table = pd.DataFrame(
        [
            {"Method": "a_b & <c>", "Value | unit": "1.5 ± 0.2", RECORDS: "r1 r2"},
            {"Method": "dense", "Value | unit": "-", RECORDS: ""},
        ]
    )
    return Table("example", "Example", "50% of $all", (), lambda records: table), table


def test_markdown_is_aligned_and_escaped() -> None:
    text = markdown(*example(), notes=["*wild* [text]"])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert rows[0] == "| Method      | Value \\| unit |"
    assert r"\*wild\* \[text\]" in text
    assert r"- a_b & \<c\>, 1.5 ± 0.2: r1, r2" in text


def test_latex_is_escaped() -> None:
    text = latex(*example(), notes=["a note"])
    assert r"a\_\allowbreak{}b \& \textless{}c\textgreater{} & 1.5 $\pm$ 0.2 \\" in text
    assert r"\caption{50\% of \$all}" in text and r"\begin{tabular}{lr}" in text
    assert "% a note" in text and "r1 r2" in text


def test_html_is_escaped_and_tells_its_provenance() -> None:
    _, table = example()
    records = {name: make_record(number, seed=number) for number, name in enumerate(("r1", "r2"))}
    text = html(table, records)
    assert "a_b &amp; &lt;c&gt;" in text and "<c>" not in text
    assert 'title="2 runs; commit 0123456789, Test CPU; records r1, r2"' in text
    assert '<a href="#r-r1">' in text and "<summary>2 runs</summary>" in text
    assert 'title="no run"' in text


def test_plain_text_drops_columns_until_it_fits() -> None:
    table = pd.DataFrame([{"A": "x" * 30, "B": "y" * 30, "C": "z" * 30}])
    assert plain(table, ("A", "B", "C"), 70).splitlines()[0].split() == ["A", "B"]
    assert plain(table, ("A", "absent"), 70).splitlines()[1] == "x" * 30
    assert math.isclose(len(plain(table, ("A", "B", "C"), 200).splitlines()[1]), 94)


def test_llama_pretraining_shows_bytes_and_every_learning_rate() -> None:
    rates = {"dense": 0.002, "galore": 0.01}
    records = [
        make_record(
            number,
            {"perplexity": 30.0 + number, "training_bytes_peak": 1.6e7, "training_bytes": 8e6},
            experiment="llama_pretraining", method=method, target=None,
            training={"steps": 80, "learning_rate": rate},
        )
        for number, (method, rate) in enumerate(rates.items())
    ]  # fmt: skip
    table = llama_pretraining.build(records)
    assert dict(zip(table["Method"], table["Learning rate"], strict=True)) == {"full rank": "0.002", "GaLore": "0.01"}
    assert set(table["Training holds, peak"]) == {"16.00 MB"} and set(table["Training holds, end"]) == {"8.000 MB"}
    assert "Step time" not in table  # no record has it


def classifiers() -> list[RunRecord]:
    """Three seeds of two methods for each of two models of `deit_imagenet`."""
    return [
        make_record(
            100 * place + 10 * other + seed,
            {"top1": 0.5 + 0.1 * place + 0.01 * seed, "top5": 0.9, "training_bytes": 8e6},
            experiment="deit_imagenet", method=method, target=target, seed=seed, model={"name": name},
        )
        for place, name in enumerate(("deit_tiny", "deit_small"))
        for other, (method, target) in enumerate((("dense", None), ("ecospa", 0.5)))
        for seed in range(3)
    ]  # fmt: skip


def vit_runs(*, matters: bool) -> list[RunRecord]:
    """Three seeds of EcoSpa, dense, small dense and a masked model trained for longer: a ViT at 30 % of its blocks."""
    small = 1.3 if matters else 1.1
    arms = (("ecospa", 0.3, 1.2, 100), ("dense", None, 1.1, 100), ("small_dense", 0.3, small, 100),
            ("magnitude", 0.3, 1.0, 200))  # fmt: skip
    return [
        make_record(
            10 * place + seed,
            {"eval_loss": loss + 0.1 * seed + 0.001 * ((seed * (place + 1)) % 3), "top1": 0.6 - 0.1 * (loss - 1)},
            experiment="vit_cifar10", method=method, target=target, seed=seed, model={"name": "vit"},
            training={"steps": steps, "batch_size": 8},
        )
        for place, (method, target, loss, steps) in enumerate(arms)
        for seed in range(3)
    ]  # fmt: skip


def test_controls_on_images_are_paired_and_need_their_precondition() -> None:
    table = image_controls.build(vit_runs(matters=True))
    assert list(table["EcoSpa against"]) == ["dense", "small dense"]  # more steps are no equal training
    assert cell(table, 0, "Nats per image").startswith("+0.1") and cell(table, 0, "Reading") == "EcoSpa worse"
    assert cell(table, 1, "Nats per image").startswith("-0.0990 [") and cell(table, 1, "Reading") == "EcoSpa better"
    assert cell(table, 0, "Top-1 points").startswith("-1.0") and cell(table, 1, "Top-1 points").startswith("+1.0")
    assert "comparisons at this size count" in image_controls.notes(vit_runs(matters=True))[0]
    without = image_controls.build(vit_runs(matters=False))
    assert all("cannot decide here" in reading for reading in without["Reading"])
    assert image_controls.build([]).empty and image_controls.notes([]) == ()


def test_every_classifier_stands_beside_its_own_model() -> None:
    table = deit_imagenet.ITEM.build(classifiers())
    assert list(table["Model"]) == ["deit_tiny", "deit_tiny", "deit_small", "deit_small"]
    assert list(table["Method"]) == ["dense", "EcoSpa"] * 2 and list(table["Seeds"]) == ["3"] * 4
    # mean 0.51, half width 4.3027 * 0.01 / sqrt(3) = 0.0248
    assert cell(table, 0, "Top-1") == "51.0 ± 2.5 %" and cell(table, 3, "Top-1") == "61.0 ± 2.5 %"
    assert cell(table, 0, "Top-5") == "90.00 %" and cell(table, 0, "Training holds, end") == "8.000 MB"
    assert "Step time" not in table
    notes = deit_imagenet.ITEM.notes(classifiers())
    assert notes[-1].startswith("No number of EcoSpa for DeiT is known")
    assert any(note.startswith("deit_small: Model: name deit_small") for note in notes)
    one = [record for record in classifiers() if record.config["model"]["name"] == "deit_tiny"]
    assert any(note.startswith("Model: name deit_tiny") for note in vit_cifar10.ITEM.notes(one))
    for empty in (deit_imagenet.ITEM, vit_cifar10.ITEM):
        assert empty.build([]).empty and empty.notes([]) == ()
