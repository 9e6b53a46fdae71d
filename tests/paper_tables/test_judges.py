"""Models that may be compared: the right one, one device, equal training; and which of several decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from paper_tables.claims.judges import Setting, against_dense, infers_faster, steps_faster_than_aligned
from paper_tables.claims.published import INFERENCE_SPEED, LLAMA_1B_MEMORY, LLAMA_1B_TIME
from paper_tables.claims.quality_judges import beats, beats_fine_tuned, grows_when_cut, on_largest_model
from paper_tables.claims.statements import claims
from paper_tables.claims.verdicts import (
    DIRECTION,
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    SMALLER,
    UNDECIDED,
)
from paper_tables.tables import controls
from results import RunRecord
from tests.results.factory import make_record
from tests.results.regime_records import sized

LLAMA_1B = {"name": "llama", "width": 2048, "layers": 24}
SMALL = {"name": "llama", "width": 512, "layers": 8}
MEMORY = against_dense(LLAMA_1B_MEMORY, "training_memory", "peak_memory", "a GPU", as_ratio=True, at_scale=("gpu",))
SPEED = infers_faster(INFERENCE_SPEED, "inference_speed", "llama", "a GPU", {"gpu": Setting(16, 192)})
CURVE = {"curve": "cubic", "start_step": 10, "end_step": 90, "interval": 4}


def runs(first: int, values: Sequence[float], metric: str = "perplexity", **changes: Any) -> list[RunRecord]:
    return [make_record(first + seed, {metric: value}, seed=seed, **changes) for seed, value in enumerate(values)]


def memory(ours: Sequence[float], model: dict[str, Any], tier: str = "gpu", **changes: Any) -> list[RunRecord]:
    common = {"experiment": "training_memory", "tier": tier, "model": model}
    return [
        *runs(0, ours, "peak_memory", **common, **changes),
        *runs(20, (100.0,) * 3, "peak_memory", method="dense", target=None, **common),
    ]


def test_a_headline_is_reproduced_on_its_own_model_alone() -> None:
    half = (45.0, 46.0, 47.0)
    assert MEMORY(memory(half, LLAMA_1B), "gpu").kind == REPRODUCED
    assert MEMORY(memory(half, SMALL), "gpu").kind == DIRECTION
    assert MEMORY(memory(half, LLAMA_1B, "smoke"), "smoke").kind == DIRECTION
    largest = on_largest_model(MEMORY, "training_memory", "llama")
    other = [*memory((10.0,) * 3, {"name": "gpt2", "width": 4096, "layers": 24})]
    assert largest([*memory(half, LLAMA_1B), *other], "gpu").measured.startswith("peak memory ratio 0.46 [")
    found = largest(memory(half, SMALL, "paper"), "paper")
    assert found.text.startswith("not run (needs LLaMA-1B (24 layers of 2048): python -m benchmarks run")


def test_a_headline_is_judged_at_half_of_the_blocks_and_says_so() -> None:
    smaller = runs(40, (20.0,) * 3, "peak_memory", experiment="training_memory", tier="gpu", model=LLAMA_1B, target=0.3)
    found = MEMORY([*memory((45.0, 46.0, 47.0), LLAMA_1B), *smaller], "gpu")
    assert found.measured.startswith("peak memory ratio 0.46 [")
    assert found.measured.endswith(" at 50% of the block parameters; detectable 0.031")
    assert MEMORY([*smaller, *memory((1.0,), LLAMA_1B)[1:]], "gpu").text == "not run (needs a GPU)"


def test_a_headline_has_both_controls_beside_it() -> None:
    headlines = [claim for claim in claims() if claim.headline]
    common: dict[str, Any] = {"experiment": "llama_pretraining", "tier": "cpu", "model": SMALL}
    records = [
        *runs(0, (20.0, 20.2, 20.1), **common),
        *runs(10, (19.0, 19.1, 19.2), method="dense", target=None, **common),
        *runs(20, (25.0, 25.3, 25.1), method="small_dense", **common),
    ]
    time = headlines[1].verdict(records, "cpu")
    against_whole, against_small, against_aligned = time.control_lines
    assert against_aligned == "the dense model at aligned widths: not run"
    assert against_whole.startswith("against dense at equal steps: +0.0510 [+0.0384, ")
    assert against_whole.endswith("] nats (perplexity +1); detectable 0.016 (EcoSpa worse)")
    assert against_small.startswith("against small dense of equal size: -0.2235 [")
    assert against_small.endswith("] nats (perplexity -5.03); detectable 0.0047 (EcoSpa better)")
    assert set(time.all_records) == {record.id for record in records} and len(time.all_records) == 9
    few = headlines[1].verdict([*records[:2], *records[3:5]], "cpu")
    assert few.control_lines[0].endswith("(not run (n too small: needs 3 seeds, has 2))")
    of_time = [claim for claim in headlines if claim.mechanical]
    assert [claim.published for claim in of_time] == ["training time / dense 0.79", "inference speed / dense 1.6"]
    for claim in headlines:
        assert claim.verdict([], "cpu").control_lines == (
            "dense at equal steps: not run",
            "small dense of equal size: not run",
            *(["the dense model at aligned widths: not run"] if claim in of_time else []),
        )


def test_a_verdict_tells_what_stands_beside_what_decides() -> None:
    common: dict[str, Any] = {"experiment": "training_memory", "tier": "cpu", "model": SMALL}
    metrics = {"peak_memory": 100.0, "steady_memory": 60.0}
    records = [
        make_record(seed, metrics, seed=seed, **common) for seed in range(3)
    ] + [
        make_record(10 + seed, dict.fromkeys(metrics, 100.0), seed=seed, method="dense", target=None, **common)
        for seed in range(3)
    ]  # fmt: skip
    judge = against_dense(
        LLAMA_1B_MEMORY, "training_memory", "peak_memory", "a GPU", as_ratio=True,
        beside=(("at the end", "steady_memory"), ("on average", "mean_memory")),
    )  # fmt: skip
    found = judge(records, "cpu")
    assert found.kind == NO_DIFFERENCE
    assert found.measured == (
        "peak memory ratio 1.00 [1.00, 1.00] at 50% of the block parameters; at the end 0.60 [0.60, 0.60]"
    )


def test_bytes_of_two_devices_are_not_compared() -> None:
    other = {"kind": "cuda", "name": "another"}
    elsewhere = memory((45.0, 46.0, 47.0), LLAMA_1B, device=other)
    assert MEMORY(elsewhere, "gpu").text == "not run (needs the same device for both: a GPU)"
    mixed = [*memory((45.0, 46.0), LLAMA_1B), *elsewhere[2:3]]
    assert MEMORY(mixed, "gpu").text == "not run (n too small: needs 3 seeds, has 2)"


def at(phase: str, **changes: Any) -> dict[str, Any]:
    return {"phase": phase, "batch": 16, "sequence": 192, **changes}


def speed(phase: str, first: int, ratios: Sequence[float], **changes: Any) -> list[RunRecord]:
    fields = {"experiment": "inference_speed", "tier": "gpu", "model": LLAMA_1B, "protocol": at(phase)}
    return runs(first, ratios, "throughput_ratio", **{**fields, **changes})


@pytest.mark.parametrize(
    ("prefill", "decode", "kind"),
    [
        ((1.70, 1.71, 1.72), (1.65, 1.66, 1.70), REPRODUCED),
        ((1.70, 1.71, 1.72), (1.20, 1.21, 1.22), SMALLER),
        ((0.90, 0.91, 0.92), (1.70, 1.71, 1.72), NOT_REPRODUCED),
    ],
)
def test_the_slower_phase_decides_the_speed(prefill: Sequence[float], decode: Sequence[float], kind: str) -> None:
    both = [*speed("prefill", 0, prefill), *speed("decode", 10, decode)]
    found = SPEED(both, "gpu")
    assert found.kind == kind and found.measured.startswith(f"throughput ratio: prefill {prefill[1]:.2f} [")
    assert "decides, at 50% of the block parameters, batch 16, 192 tokens; detectable " in found.measured
    assert SPEED(both[:3], "gpu").text == SPEED(both[3:], "gpu").text == "not run (needs a GPU)"
    small = [*speed("prefill", 0, prefill, model=SMALL), *speed("decode", 10, decode, model=SMALL)]
    assert SPEED(small, "gpu").kind != REPRODUCED
    assert SPEED([*speed("prefill", 0, prefill, target=0.3), *both[3:]], "gpu").kind == NOT_RUN


def test_a_compiled_decode_decides_where_there_is_one() -> None:
    eager = [*speed("prefill", 0, (1.7, 1.71, 1.72)), *speed("decode", 10, (1.0, 1.01, 1.02))]
    compiled = speed("decode", 20, (1.8, 1.81, 1.82), protocol=at("decode", mode="compiled"))
    assert "decode 1.01 [" in SPEED(eager, "gpu").measured
    assert "decode 1.81 [" in SPEED([*eager, *compiled], "gpu").measured
    smaller = speed("decode", 20, (1.8, 1.81, 1.82), protocol=at("decode", mode="compiled", batch=1))
    assert "decode 1.01 [" in SPEED([*eager, *smaller], "gpu").measured


def aligned_speed(phase: str, first: int, ratios: Sequence[float], **changes: Any) -> list[RunRecord]:
    return speed(phase, first, ratios, method="dense_aligned", target=None, **changes)


def test_a_speed_up_that_is_alignment_is_none_against_the_aligned_dense_model() -> None:
    judge = infers_faster(INFERENCE_SPEED, "inference_speed", "llama", "a GPU", {"gpu": Setting(16, 192)}, aligned=True)
    ours = [*speed("prefill", 0, (2.97, 2.98, 2.99)), *speed("decode", 10, (1.80, 1.81, 1.79))]
    assert judge(ours, "gpu").text == "not run (needs a GPU)"
    control = [*aligned_speed("prefill", 20, (2.97, 2.99, 2.98)), *aligned_speed("decode", 30, (1.0, 1.0, 1.01))]
    found = judge([*ours, *control], "gpu")
    assert found.kind == NO_DIFFERENCE
    assert found.measured.startswith("throughput ratio to aligned dense: prefill 1.00 [0.99, 1.01], decode 1.79 [")
    assert "prefill decides" in found.measured
    assert {record.id for record in (*ours[:3], *control[:3])} == set(found.records)
    assert SPEED([*ours, *control], "gpu").kind == REPRODUCED  # against the dense model all of it counts
    elsewhere = {"kind": "cuda", "name": "another"}
    moved = [*aligned_speed("prefill", 20, (1.0, 1.0, 1.0), device=elsewhere), *control[3:]]
    assert judge([*ours, *moved], "gpu").kind == NOT_RUN


def test_a_step_is_compared_with_the_aligned_dense_model_by_seed() -> None:
    judge = steps_faster_than_aligned(
        LLAMA_1B_TIME, "training_speed", "llama", "a GPU", {"gpu": Setting(32, 256)}
    )  # fmt: skip
    fields: dict[str, Any] = {"experiment": "training_speed", "tier": "gpu", "model": LLAMA_1B}
    fields["protocol"] = {"phase": "training", "batch": 32, "sequence": 256}
    ours = runs(0, (0.33, 0.34, 0.335), "step_time_ratio", **fields)
    assert judge(ours, "gpu").kind == NOT_RUN
    control = runs(10, (0.45, 0.46, 0.452), "step_time_ratio", method="dense_aligned", target=None, **fields)
    found = judge([*ours, *control], "gpu")
    assert found.kind == REPRODUCED and found.measured.startswith("time of a step / aligned dense 0.74 [")
    assert set(found.records) == {record.id for record in (*ours, *control)}


@pytest.mark.parametrize("method", ["dense", "random_pairs"])
def test_runs_of_unequal_training_are_not_compared(method: str) -> None:
    target = None if method == "dense" else 0.5
    ours = runs(0, (50.0, 50.1, 50.2), method_config=CURVE)
    longer = runs(10, (51.0, 51.2, 51.1), method=method, target=target, training={"steps": 400, "batch_size": 8})
    found = beats(method, 0.5)([*ours, *longer], "smoke")
    assert found.kind == NOT_RUN and "runs of equal training, not steps 200 against 400" in found.detail
    assert controls.build([*ours, *longer]).empty
    assert controls.notes([*ours, *longer])[0].startswith("Not compared with ")


def test_a_control_on_the_curve_has_the_same_curve() -> None:
    ours, other = runs(0, (50.0, 50.1, 50.2), method_config=CURVE), {**CURVE, "interval": 8}
    aligned = runs(10, (51.0, 51.2, 51.1), method="random_pairs", method_config=other)
    assert "interval 4 against 8" in beats("random_pairs", 0.5)([*ours, *aligned], "smoke").detail
    # one cut has a curve of its own, and a learning rate of its own is no other training
    once = runs(20, (51.0, 51.2, 51.1), method="ecospa_at_end", method_config=other)
    assert beats("ecospa_at_end", 0.5)([*ours, *once, *sized(60)], "smoke").kind == DIRECTION
    rate = {"steps": 200, "batch_size": 8, "learning_rate": 0.01}
    assert beats("galore", 0.5)([*ours, *runs(30, (51.0, 51.2, 51.1), method="galore", training=rate)], "smoke").n == 3


def tuned(first: int, values: Sequence[float], model: str, **changes: Any) -> list[RunRecord]:
    fields = {"experiment": "llama_finetuning", "protocol": {"procedure": "fine-tuned"}, "model": {"name": model}}
    return runs(first, values, **{**fields, **changes})


def test_a_loss_decides_before_the_noise_of_another_model() -> None:
    # clear loses by 1.0 with a narrow interval; noisy wins on the mean, but its interval reaches far above 1
    clear = [*tuned(0, (11.0, 12.0, 13.1), "clear"), *tuned(10, (10.0, 11.0, 12.0), "clear", method="surgeon")]
    noisy = [*tuned(20, (10.0, 30.0, 19.0), "noisy"), *tuned(30, (20.0, 20.0, 20.0), "noisy", method="surgeon")]
    found = beats_fine_tuned("surgeon", 0.5)([*clear, *noisy], "cpu")
    assert found.kind == NOT_REPRODUCED and found.measured.startswith("clear: ")
    assert beats_fine_tuned("surgeon", 0.5)(noisy, "cpu").kind == UNDECIDED


def test_a_model_with_too_few_seeds_is_left_out_and_named() -> None:
    few = [*tuned(0, (11.0, 12.0), "few"), *tuned(10, (10.0, 11.0), "few", method="surgeon")]
    good = [*tuned(20, (9.0, 10.0, 11.1), "good"), *tuned(30, (10.0, 11.0, 12.0), "good", method="surgeon")]
    judge = beats_fine_tuned("surgeon", 0.5)
    found = judge([*few, *good], "cpu")
    assert found.kind == DIRECTION and found.measured.endswith("; left out, too few seeds: few (n=2)")
    assert judge(few, "cpu").text == "not run (n too small: needs 3 seeds, has 2)"


def test_a_toy_decides_nothing_beside_a_real_model() -> None:
    name = "SmolLM2-135M-Instruct"
    lost = [*tuned(0, (11.0, 12.0, 13.1), "toy"), *tuned(10, (10.0, 11.0, 12.0), "toy", method="surgeon")]
    won = [*tuned(20, (9.0, 10.0, 11.1), name), *tuned(30, (10.0, 11.0, 12.0), name, method="surgeon")]
    judge = beats_fine_tuned("surgeon", 0.5)
    found = judge([*lost, *won], "cpu")
    assert found.kind == DIRECTION and found.measured.startswith(f"{name}: ")
    assert "; beside it toy: +" in found.measured
    # nor where the real one has too few seeds to decide
    assert judge([*lost, *(record for record in won if record.seed < 2)], "cpu").kind == NOT_RUN
    assert judge(lost, "cpu").kind == NOT_REPRODUCED


def test_growth_is_judged_model_by_model_too() -> None:
    shrinking = [*tuned(0, (10.0, 11.0, 12.0), "a", target=0.8), *tuned(10, (9.0, 10.0, 11.1), "a")]
    noisy = [*tuned(20, (10.0, 10.0, 10.0), "b", target=0.8), *tuned(30, (4.0, 30.0, 19.0), "b")]
    assert grows_when_cut(0.8, 0.5)([*shrinking, *noisy], "cpu").kind == NOT_REPRODUCED


def test_fine_tuned_runs_of_unequal_training_are_not_compared() -> None:
    training = {"steps": 100, "batch_size": 8}
    both = [*tuned(0, (9.0, 10.0, 11.0), "a"), *tuned(10, (10.0, 11.0, 12.0), "a", method="surgeon", training=training)]
    assert "steps 200 against 100" in beats_fine_tuned("surgeon", 0.5)(both, "cpu").detail


def test_every_comparison_has_its_controls_and_its_evidence() -> None:
    said = {claim.statement: claim.source for claim in claims()}
    for share in ("50%", "30%"):
        for control in ("the dense model at equal steps", "a small dense model of equal size from scratch"):
            assert f"A LLaMA shrunk from scratch to {share} beats {control} (the largest model)" in said
        random = "Chosen indices beat random ones, removed aligned on the same curve"
        assert said[f"{random}, at {share} of the block parameters"] == "this project's own control"
    for share in ("80%", "50%"):
        start = f"Fine-tuned to {share}, a LLaMA shrunk by EcoSpa beats"
        assert "[R]" in said[f"{start} the dense model at equal steps"]
        assert said[f"{start} K-OBD (cut first, then as many steps)"].endswith("[I]")
        assert said[f"{start} LLM-Pruner (cut first, then adapters)"] == "this project's own control"
    twice = [source for text, source in said.items() if text.endswith("lower perplexity than dense at twice the steps")]
    assert len(twice) == 2 and all(source.endswith("baseline [I]") for source in twice)


def test_what_the_headlines_need_is_a_command() -> None:
    needed = [claim.judge([], "cpu").detail for claim in claims() if claim.headline]
    assert needed[0].endswith("python -m benchmarks run training_memory --tier gpu")
    assert needed[3].endswith("python -m benchmarks run inference_speed --tier gpu")
