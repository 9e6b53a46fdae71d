"""Tables, figure and claims of LLaMAs: numbers of two protocols share no column, and chance stands beside accuracy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paper_tables.analysis.fine_tuning import kept_share, protocols
from paper_tables.analysis.formats import NOTHING
from paper_tables.claims.quality_judges import beats_fine_tuned, grows_when_cut, on_largest_model
from paper_tables.claims.verdicts import DIRECTION, NOT_REPRODUCED, NOT_RUN, needs
from paper_tables.drawing.style import drawing
from paper_tables.figures import llama_finetuning_sizes as figure
from paper_tables.item import records_of
from paper_tables.tables import llama_finetuning, llama_pretraining, llama_zero_shot
from results import Metric, RunRecord
from tests.results.factory import make_record
from tests.results.llama_records import FINETUNED

PANELS = ["stories260K, one-shot", "stories260K, fine-tuned", "llama, one-shot", "llama, fine-tuned"]


@pytest.fixture(scope="module")
def records(made_up: tuple[RunRecord, ...]) -> list[RunRecord]:
    return list(made_up)


def tuned(method: str, target: float | None, scores: list[float], procedure: str = "fine-tuned") -> list[RunRecord]:
    """Records of one cell of llama_finetuning, one per score."""
    return [
        make_record(
            len(method) * 100 + int(10 * (target or 1)) * 10 + seed, {"perplexity": score},
            experiment="llama_finetuning", method=method, target=target, seed=seed, model={"name": "llama"},
            protocol={"procedure": procedure},
        )
        for seed, score in enumerate(scores)
    ]  # fmt: skip


def test_every_model_and_procedure_has_a_column_of_its_own(records: list[RunRecord]) -> None:
    table = llama_finetuning.build(records_of(llama_finetuning.ITEM, records))
    assert [*table.columns] == ["Method", "Removes", "Blocks kept", *PANELS, "Seeds", "Records"]
    assert len(table) == 1 + 2 * len(FINETUNED) and table.iloc[0]["Method"] == "dense"
    half = table[(table.Method == "EcoSpa") & (table["Blocks kept"] == "50%")].iloc[0]
    at_once, trained = (float(half[column].split()[0]) for column in PANELS[:2])
    assert at_once > 2 * trained and half["Seeds"] == "3" and len(half["Records"].split()) == 12
    assert dict(zip(table.Method, table.Removes, strict=True))["Wanda"] == "zeros"
    notes = llama_finetuning.ITEM.notes(records_of(llama_finetuning.ITEM, records))
    assert all(any(note.startswith(f"{panel}. Protocol: procedure") for note in notes) for panel in PANELS)


def test_a_size_that_was_missed_or_not_run_is_shown_as_such() -> None:
    made = [
        make_record(
            number, {"perplexity": 30.0, "block_parameters": whole, "block_parameters_nonzero": left},
            experiment="llama_finetuning", method=method, target=target, model={"name": name},
            protocol={"procedure": "one-shot"},
        )
        for number, (method, target, whole, left, name) in enumerate(
            [("dense", None, 100, 100, "a"), ("slicegpt", 0.6, 64, 64, "a"), ("slicegpt", 0.6, 60, 60, "b")]
        )
    ]  # fmt: skip
    table = llama_finetuning.build(made)
    sliced = table[table.Method == "SliceGPT"].iloc[0]
    assert (sliced["a, one-shot"], sliced["b, one-shot"]) == ("30.00 at 64%", "30.00")
    assert table.iloc[0]["b, one-shot"] == NOTHING
    lower = [made[0], make_record(
        9, {"perplexity": 30.0, "block_parameters": 55, "block_parameters_nonzero": 55},
        experiment="llama_finetuning", method="slicegpt", target=0.6, model={"name": "a"},
        protocol={"procedure": "one-shot"},
    )]  # fmt: skip
    assert llama_finetuning.build(lower).iloc[1]["a, one-shot"] == "30.00 at 55%"
    own, other = protocols(made)
    assert kept_share(own.comparison.cells[1], own.comparison) == 0.64
    assert kept_share(other.comparison.cells[0], other.comparison) is None  # no dense model to compare with


def test_a_panel_per_protocol_with_its_own_scale(records: list[RunRecord]) -> None:
    with drawing("test"):
        drawn = figure.build(records_of(figure.ITEM, records))
    assert drawn is not None
    assert [panel.get_title(loc="left") for panel in drawn.axes] == PANELS
    for panel in drawn.axes:
        assert panel.get_xlim()[0] > panel.get_xlim()[1] and panel.get_yscale() == "log"
        assert len(panel.get_legend().get_texts()) == 1 + len(FINETUNED)
    with drawing("test"):
        assert figure.build(tuned("ecospa", 0.5, [])) is None


def test_zero_shot_has_guessing_beside_every_model(records: list[RunRecord]) -> None:
    table = llama_zero_shot.build(records_of(llama_zero_shot.ITEM, records))
    assert list(table.Method) == ["dense", "EcoSpa", "SparseGPT", "guessing"]
    guess = table.iloc[-1]
    assert (guess["PIQA"], guess["ARC-e"], guess["ARC-e norm"], guess["continuation"]) == (
        "0.500", "0.250", "0.250", "0.250",
    )  # fmt: skip
    assert guess["Mean of seven"] == f"{(3 * 0.5 + 4 * 0.25) / 7:.3f}" and guess["Blocks kept"] == NOTHING
    dense = table.iloc[0]
    assert float(dense["PIQA"].split()[0]) == pytest.approx(0.61)
    assert dense["Largest standard error"] == "0.040"
    assert "PIQA norm" not in table and "GSM8K" not in table  # nothing was measured there
    assert llama_zero_shot.build([]).empty and llama_finetuning.build([]).empty


def test_the_mean_of_seven_needs_all_seven() -> None:
    bare = make_record(1, {"acc/piqa": 0.5}, experiment="llama_zero_shot", model={"name": "llama"})
    assert "Mean of seven" not in llama_zero_shot.build([bare])


def test_the_note_tells_how_many_questions_stand_behind_an_accuracy() -> None:
    made = make_record(1, {}, experiment="llama_zero_shot", model={"name": "llama"})
    counts = {"acc/piqa": 100, "acc/boolq": 100, "acc/continuation": 17, "acc_norm/piqa": 100}
    counts |= {"exact_match-flexible-extract/gsm8k": 50}
    asked = replace(made, metrics={name: Metric(0.5, "", True, n) for name, n in counts.items()})
    notes = llama_zero_shot.ITEM.notes([asked])
    assert "llama, unnamed. Questions: 100 each of BoolQ, PIQA; 17 each of continuation; 50 each of GSM8K." in notes
    assert not any("Questions" in note for note in llama_zero_shot.ITEM.notes([made]))


def test_pretrained_llamas_of_several_sizes_stand_apart() -> None:
    made = [
        make_record(
            number, {"perplexity": 30.0 - number}, experiment="llama_pretraining", method=method, target=None,
            model={"layers": 8, "width": width},
        )
        for number, (width, method) in enumerate([(1024, "dense"), (1024, "galore"), (512, "dense")])
    ]  # fmt: skip
    table = llama_pretraining.build(made)
    assert list(table.Model) == ["8 layers, 512 wide", "8 layers, 1024 wide", "8 layers, 1024 wide"]
    assert sum(note.startswith("Model:") for note in llama_pretraining.ITEM.notes(made)) == 2


def test_the_claim_about_time_sees_the_largest_model_alone() -> None:
    seen: list[int] = []

    def judge(given, tier):
        seen.extend(record.config["model"]["width"] for record in given)
        return needs("nothing")

    made = [
        make_record(number, experiment="llama_pretraining", model={"width": width, "layers": 24})
        for number, width in enumerate((512, 2048, 768))
    ]
    on_largest_model(judge)([*made, make_record(9)], "paper")
    assert seen == [2048]
    # the largest of what is there is not the model of the claim
    assert "needs LLaMA-1B" in on_largest_model(judge)(made[:1], "paper").text and seen == [2048]
    on_largest_model(judge)(made[:1], "cpu")
    assert seen == [2048, 512]
    assert on_largest_model(judge)([], "paper").kind == NOT_RUN


def test_fine_tuned_claims_look_at_fine_tuned_runs_alone() -> None:
    ours, better = tuned("ecospa", 0.5, [20.0, 21.0, 22.0]), tuned("surgeon", 0.5, [25.0, 26.1, 27.0])
    judge = beats_fine_tuned("surgeon", 0.5)
    assert judge([*ours, *better], "cpu").kind == DIRECTION
    assert judge([*ours, *tuned("surgeon", 0.5, [15.0, 16.1, 17.0])], "cpu").kind == NOT_REPRODUCED
    assert judge([*ours, *tuned("surgeon", 0.5, [25.0, 26.1, 27.0], "one-shot")], "cpu").kind == NOT_RUN
    assert judge([*ours, *tuned("surgeon", 0.8, [25.0, 26.1, 27.0])], "cpu").kind == NOT_RUN
    assert judge([], "cpu").kind == NOT_RUN


def test_perplexity_grows_when_the_smaller_model_is_worse() -> None:
    large, small = tuned("ecospa", 0.8, [10.0, 10.5, 11.0]), tuned("ecospa", 0.5, [14.0, 14.6, 15.0])
    assert grows_when_cut(0.8, 0.5)([*large, *small], "cpu").kind == DIRECTION
    assert grows_when_cut(0.8, 0.5)(large, "cpu").kind == NOT_RUN
    assert grows_when_cut(0.5, 0.8)([*large, *small], "cpu").kind == NOT_REPRODUCED
