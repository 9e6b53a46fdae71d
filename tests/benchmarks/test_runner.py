"""One training run: it learns, it can be interrupted anywhere, and what it says about itself is right."""

from __future__ import annotations

import functools
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from benchmarks.experiment import RunResult
from benchmarks.procedures import training
from benchmarks.training import checkpoint, loop
from tests.benchmarks.tiny_runs import HERE, STEPS, Interrupting, run_context, run_of, train, use_tiny_text

LANGUAGE_MODEL_METRICS = {
    "perplexity", "word_perplexity", "bits_per_byte", "eval_loss", "parameters", "parameters_nonzero",
    "parameters_effective", "block_parameters", "block_parameters_nonzero", "block_parameters_effective", "step_flops",
    "run_flops", "step_time", "training_seconds", "final_step_time_ratio", "peak_memory", "training_bytes_peak",
    "training_bytes", "shrink_events", "training_steps", "tokens_per_parameter", "average_parameters",
    "average_block_parameters",
}  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_text(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_text(monkeypatch)


def value(outcome: RunResult, name: str) -> float:
    return outcome.metrics[name].value


def test_a_dense_model_learns_and_everything_is_measured(tmp_path: Path) -> None:
    outcome = train(run_of(steps=40), run_context(tmp_path))
    assert set(outcome.metrics) == LANGUAGE_MODEL_METRICS
    first, last = outcome.loss_curve[0][1], outcome.loss_curve[-1][1]
    assert last < 0.6 * first
    assert outcome.loss_curve[-1][0] == 40
    assert [event.step for event in outcome.plan_history] == [0]
    assert value(outcome, "parameters") == outcome.plan_history[0].parameters
    assert value(outcome, "run_flops") == 40 * value(outcome, "step_flops")
    assert value(outcome, "peak_memory") > 1e7
    # weights, gradients and both moments of AdamW, four bytes each
    assert (
        value(outcome, "training_bytes") == value(outcome, "training_bytes_peak") == 16 * value(outcome, "parameters")
    )


def test_a_shrinking_model_ends_at_its_target_and_costs_less(tmp_path: Path) -> None:
    outcome = train(run_of("ecospa", 0.5), run_context(tmp_path))
    sizes = [event.block_parameters for event in outcome.plan_history]
    assert sizes == sorted(sizes, reverse=True)
    assert value(outcome, "block_parameters") == sizes[-1]
    assert sizes[-1] == pytest.approx(0.5 * sizes[0], rel=0.05)
    assert value(outcome, "shrink_events") == len(sizes) - 1
    assert value(outcome, "step_flops") < value(outcome, "run_flops") / STEPS
    assert value(outcome, "training_bytes") == 16 * value(outcome, "parameters")
    assert value(outcome, "training_bytes_peak") == 16 * outcome.plan_history[0].parameters


@pytest.mark.parametrize(
    "method",
    ["ecospa", *(pytest.param(name, marks=pytest.mark.slow) for name in ("dense", "uncoupled", "small_dense"))],
)
def test_the_same_run_gives_the_same_numbers(method: str, tmp_path: Path) -> None:
    target = None if method == "dense" else 0.5
    one, two = (train(run_of(method, target), run_context(tmp_path / name)) for name in ("one", "two"))
    assert one.loss_curve == two.loss_curve
    assert value(one, "eval_loss") == value(two, "eval_loss")
    assert one.plan_history == two.plan_history


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("ecospa", 0.3),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                *(("relora", None), ("slicegpt", 0.7), ("soap", None)),
                *(("dense", None), ("magnitude", 0.5), ("small_dense", 0.5), ("galore", None), ("lora", None)),
                *(("low_rank", 0.5), ("llm_pruner", 0.5), ("sltrain", None), ("apollo", None), ("stable_spam", None)),
            )
        ),
    ],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    method: str, target: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(run_of(method, target), run_context(tmp_path / "whole"))
    interrupt_at(8, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(run_of(method, target), run_context(tmp_path / "halves"))
    folder = tmp_path / "halves" / run_of(method, target).folder_name
    saved = checkpoint.latest(folder)
    assert saved is not None and saved.name == "checkpoint-7"
    resumed = train(run_of(method, target), run_context(tmp_path / "halves"))
    assert resumed.loss_curve == whole.loss_curve
    assert resumed.plan_history == whole.plan_history
    for name in ("eval_loss", "run_flops", "parameters", "block_parameters_nonzero"):
        assert value(resumed, name) == value(whole, name)
    assert resumed.metrics["step_time"].n == STEPS
    assert resumed.seconds_before > 0


@pytest.mark.parametrize("method", ["galore", "lora", "apollo_mini"])
def test_memory_efficient_training_holds_less(method: str, tmp_path: Path) -> None:
    outcome = train(run_of(method), run_context(tmp_path))
    assert value(outcome, "training_bytes_peak") < 16 * value(outcome, "parameters")


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run that comes to this step is interrupted after it; later ones are not."""
    from benchmarks.training.callback import MethodCallback

    original, left = MethodCallback.on_step_end, [1]

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step and left:
            left.clear()
            raise KeyboardInterrupt
        return original(self, args, state, control, **kwargs)

    monkeypatch.setattr(MethodCallback, "on_step_end", on_step_end)


def test_a_checkpoint_that_was_not_completed_is_passed_over(tmp_path: Path) -> None:
    for step, complete in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / "run.json").write_text("{}")
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoint-10"
    assert checkpoint.latest(tmp_path / "none") is None


def test_the_last_complete_checkpoint_stays_until_the_next_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of()
    folder = tmp_path / run.folder_name
    complete, latest = checkpoint.save, list[Path | None]()

    def killed_at(*steps: int) -> None:
        """As by a kill that comes when the Trainer has written its part of these checkpoints."""

        def save(place: Path, *others: Any) -> None:
            latest.append(checkpoint.latest(folder))
            if int(place.name.rpartition("-")[2]) in steps:
                raise KeyboardInterrupt
            complete(place, *others)

        monkeypatch.setattr(checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            train(run, run_context(tmp_path))

    killed_at(3)
    leftover = folder / "checkpoint-3"
    assert leftover.is_dir() and checkpoint.latest(folder) == folder / "checkpoint-2"
    leftover.rename(folder / "checkpoint-5")  # a clock decides when they are due: the next ones may be before and after
    killed_at(4)
    assert latest == [None, *(folder / f"checkpoint-{step}" for step in (1, 2, 2, 3))]
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-4"}


def test_a_custom_method_is_driven_and_can_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interrupting, "armed", True)
    run = run_of(f"{HERE}:Interrupting")
    with pytest.raises(KeyboardInterrupt):
        train(run, run_context(tmp_path))
    assert train(run, run_context(tmp_path)).loss_curve[-1][0] == STEPS


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.tasks import language_model

    build = language_model.build_model

    def broken(*arguments, **options):
        model = build(*arguments, **options)
        model.transformer.wte.weight.data[0] = float("nan")
        return model

    monkeypatch.setattr(language_model, "build_model", broken)
    with pytest.raises(FloatingPointError, match="step 1: the training loss is nan"):
        train(run_of(), run_context(tmp_path))


def test_several_visible_gpus_do_not_multiply_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Several(TrainingArguments):
        @functools.cached_property
        def _setup_devices(self):
            found = super()._setup_devices
            self._n_gpu = 3
            return found

    seen = []
    monkeypatch.setattr(loop, "TrainingArguments", Several)
    monkeypatch.setattr(loop.Trainer, "train", lambda self, **options: seen.append(self.args))
    loop.train(run_of(), run_context(tmp_path))
    assert [(arguments.n_gpu, arguments.train_batch_size) for arguments in seen] == [(1, 4)]


def test_a_ratio_that_does_not_fit_into_memory_is_left_out_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*arguments: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "final_step_time_ratio", too_large)
    outcome = train(run_of(), run_context(tmp_path))
    assert set(outcome.metrics) == LANGUAGE_MODEL_METRICS - {"final_step_time_ratio"}
    assert outcome.payload["left_out"] == {"final_step_time_ratio": "two models in training did not fit into memory"}


def test_the_optimizer_of_the_training_is_gone_before_the_ratio_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def optimizers() -> int:
        return sum(type(thing) is torch.optim.AdamW for thing in gc.get_objects())

    def count(*arguments: object) -> float:
        held.append(optimizers())
        return 1.0

    monkeypatch.setattr(training, "final_step_time_ratio", count)
    gc.collect()
    before = optimizers()
    outcome = train(run_of("ecospa", 0.5), run_context(tmp_path))
    assert held == [before] and "left_out" not in outcome.payload
