"""Only runs that belong together stand in one table."""

from __future__ import annotations

from dataclasses import replace

from paper_tables.analysis.cells import compare, protocol_notes, provenance
from paper_tables.analysis.training_length import tokens_column, tokens_per_parameter, trained_enough
from paper_tables.methods import label
from results import PlanEvent, RunRecord
from tests.results.factory import make_record


def runs(method: str, seeds: int, first: int, **changes: object) -> list[RunRecord]:
    return [make_record(first + seed, method=method, seed=seed, **changes) for seed in range(seeds)]


def test_seeds_of_one_configuration_make_one_cell() -> None:
    comparison = compare(
        [*runs("dense", 2, 0, target=None), *runs("ecospa", 3, 10), *runs("ecospa", 3, 20, target=0.3)]
    )
    assert [(cell.method, cell.target, len(cell.records)) for cell in comparison.cells] == [
        ("dense", None, 2),
        ("ecospa", 0.5, 3),
        ("ecospa", 0.3, 3),
    ]
    assert comparison.targets == (0.5, 0.3)
    assert comparison.left_out == 0


def test_methods_stand_in_their_order_and_newcomers_at_the_end() -> None:
    methods = ("my_method", "small_dense", "uncoupled", "ecospa")
    comparison = compare([make_record(number, method=method) for number, method in enumerate(methods)])
    assert [cell.method for cell in comparison.cells] == ["ecospa", "uncoupled", "small_dense", "my_method"]
    assert (label("my_method"), label("ecospa")) == ("my_method", "EcoSpa")


def test_the_newest_run_of_a_seed_counts_and_the_older_is_told() -> None:
    old, new = make_record(1, {"perplexity": 9.0}), make_record(2, {"perplexity": 8.0})
    comparison = compare([new, old])
    assert comparison.cells[0].values("perplexity") == {0: 8.0}
    assert comparison.left_out == 1


def test_failed_runs_do_not_count() -> None:
    assert compare([make_record(status="failed", error="boom")]).cells == ()


def test_other_models_data_and_protocols_are_kept_apart() -> None:
    ours = [*runs("ecospa", 2, 0), *runs("uncoupled", 2, 10)]
    for number, change in enumerate(
        (
            {"model": {"layers": 9}},
            {"data": {"source": "c4"}},
            {"protocol": {"stride": 1}},
            {"data_fingerprint": "other"},
        )
    ):
        stranger = make_record(50 + number, method="dense", target=None, **change)
        comparison = compare([*ours, stranger])
        assert [cell.method for cell in comparison.cells] == ["ecospa", "uncoupled"]
        assert comparison.left_out == 1
        assert any("1 finished records" in note for note in protocol_notes([*ours, stranger]))


def test_a_single_new_run_does_not_displace_a_complete_cell() -> None:
    training = {"steps": 999}
    comparison = compare([*runs("ecospa", 3, 0), make_record(90, training=training)])
    assert [len(cell.records) for cell in comparison.cells] == [3]
    newer = compare([*runs("ecospa", 3, 0), *runs("ecospa", 3, 90, training=training)])
    assert newer.cells[0].records[0].config["training"] == training


def test_different_training_is_said_under_the_table() -> None:
    notes = protocol_notes([make_record(1), make_record(2, method="dense", target=None, training={"steps": 400})])
    assert "Protocol: bos True, sequence_length 64, split validation, stride 63, tokenizer bpe-2048." in notes
    assert any("Training of dense all: steps 400. Training of EcoSpa 50%: batch_size 8," in note for note in notes)
    assert protocol_notes([]) == ()


def test_a_method_without_target_stands_for_every_target() -> None:
    comparison = compare([make_record(1, method="dense", target=None), make_record(2), make_record(3, target=0.3)])
    dense = comparison.get("dense", 0.3)
    assert dense is not None and dense.target is None
    ours = comparison.get("ecospa", 0.3)
    assert ours is not None and ours.target == 0.3
    assert comparison.get("magnitude", 0.3) is None


BLOCKS = (PlanEvent(0, 2_000, 1_000, {}),)


def trained(first: int, steps: int, methods: tuple[str, ...], **changes: object) -> list[RunRecord]:
    """Runs of a dense model of 1,000 block parameters: steps * 8 * 64 / 1,000 tokens for each."""
    training = {"steps": steps, "batch_size": 8}
    made = [runs(method, 2, first + 10 * place, training=training, plan_history=BLOCKS, **changes)
            for place, method in enumerate(methods)]  # fmt: skip
    return [record for group in made for record in group]


def test_a_set_on_enough_text_stands_before_a_larger_one() -> None:
    short = trained(0, 10, ("dense", "ecospa", "uncoupled"))
    long = trained(100, 39, ("ecospa",), model={"layers": 9})  # 19.97 tokens
    assert tokens_per_parameter(long) == 39 * 8 * 64 / 1_000 and trained_enough(long) and not trained_enough(short)
    comparison = compare([*short, *long])
    assert [(cell.method, len(cell.records)) for cell in comparison.cells] == [("ecospa", 2)]
    assert comparison.left_out == 6
    assert "6 finished records of other settings" in protocol_notes([*short, *long])[-1]
    # of two that were trained enough the larger one counts, as of two that were not
    larger = trained(200, 40, ("ecospa", "uncoupled"), model={"layers": 10})
    assert len(compare([*short, *long, *larger]).cells) == 2
    assert len(compare([*short, *trained(300, 30, ("ecospa",), model={"layers": 9})]).cells) == 3


def test_tokens_are_those_of_the_dense_model() -> None:
    dense, small = trained(0, 10, ("dense",)), trained(10, 20, ("small_dense",))
    halved = [replace(record, plan_history=(PlanEvent(0, 1_500, 500, {}),)) for record in small]
    assert tokens_per_parameter([*dense, *halved]) == 5.12
    assert tokens_column(halved, [*dense, *halved]) == {"Tokens/parameter": "10.2"}
    said = [make_record(90, {"tokens_per_parameter": 20.0}, plan_history=BLOCKS)]
    assert tokens_per_parameter(said) == 20.0
    assert tokens_per_parameter([make_record(91)]) is None and tokens_per_parameter([]) is None
    assert tokens_column([make_record(91)], []) == {"Tokens/parameter": "-"}


def test_seeds_of_a_dirty_checkout_are_flagged() -> None:
    assert provenance(compare(runs("ecospa", 3, 0)).cells[0])["Seeds"] == "3"
    mixed = [*runs("ecospa", 2, 0, dirty=True), make_record(9, seed=2)]
    assert provenance(compare(mixed).cells[0])["Seeds"] == "3 (2 dirty)"
