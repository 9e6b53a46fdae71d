"""Predictions against what happens: sizes and bytes of a real run, FLOPs of real steps, times in proportion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ecospa
from ecospa import ConfigError, EcoSpaConfig, accounting
from ecospa.__main__ import main
from ecospa.architecture import empty_batch, empty_model
from ecospa.commands.plan import PlanArguments
from ecospa.forecast import Simulation, Workload, forecast
from ecospa.pairs import unit_positions
from ecospa.roofline import Device, known_device, measure_device, step_seconds
from ecospa.trace import stand_for, trace_step, weightless
from tests.model_zoo import build, inputs

STEPS = 30
CURVE = EcoSpaConfig(
    target_size=0.5, target_scope="blocks", pace="curve", start_step=3, end_step=24, interval=3, width_multiple=1
)
PAPER = replace(CURVE, pace="paper", top_k=0.5, importance_threshold=0.8, end_step=None)


def held_bytes(model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Weights, gradients and state as they are."""
    tensors = list(model.parameters())
    tensors += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    tensors += [value for state in optimizer.state.values() for value in state.values() if value.ndim > 0]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def trained(kind: str, config: EcoSpaConfig) -> tuple[list[ecospa.ShrinkEvent], dict[int, int]]:
    """Events of a real run, and the bytes that it holds before every cut."""
    torch.manual_seed(0)
    model: Any = build(kind).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    held: dict[int, int] = {}
    batch = {name: value.float() if value.is_floating_point() else value for name, value in inputs(kind).items()}
    for _ in range(STEPS):
        result = model(**batch)
        (result if isinstance(result, torch.Tensor) else result.logits).square().mean().backward()
        sparsity.after_backward()
        optimizer.step()
        held[accounting.parameters(model)] = held_bytes(model, optimizer)
        sparsity.after_step()
        optimizer.zero_grad()
    return list(sparsity.history), held


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa", "bert", "vit"])
def test_sizes_of_a_run_on_the_curve_are_foretold(kind: str) -> None:
    events, held = trained(kind, CURVE)
    found = forecast(weightless(build(kind).float()), CURVE, Workload(STEPS, batch=2, sequence=9))
    assert found.landed
    whole = events[0].block_parameters
    largest = max(  # one width step of the widest pair
        ecospa.plan.index_parameters(model, pair) * pair.unit
        for model in (build(kind),)
        for pair in ecospa.coupled_pairs(model)
    )
    foretold = {stage.step: stage for stage in found.stages}
    for event in events:
        stage = max((s for step, s in foretold.items() if step <= event.step), key=lambda s: s.step)
        assert abs(stage.block_parameters - event.block_parameters) <= largest
    assert foretold[0].block_parameters == whole
    assert found.stages[-1].parameters == pytest.approx(events[-1].parameters, abs=largest)
    if kind == "gpt2":  # what is not trained has no gradient: only here everything is
        assert foretold[0].bytes == held[foretold[0].parameters]


def test_the_papers_pace_is_foretold_in_events() -> None:
    events, _ = trained("gpt2", PAPER)
    found = forecast(build("gpt2").float(), PAPER, Workload(STEPS, batch=2, sequence=9))
    assert [stage.step for stage in found.stages[:3]] == [event.step for event in events[:3]]
    # scores are not quite flat, so theta keeps a little less than theta of the indices
    assert found.stages[-1].block_parameters == pytest.approx(events[-1].block_parameters, rel=0.1)


def test_stages_add_up_and_a_dense_run_costs_all() -> None:
    model = build("gpt2").float()
    found = forecast(model, CURVE, Workload(STEPS, batch=2, sequence=9))
    assert found.steps == STEPS
    assert found.stages[0].step_flops == accounting.training_flops(model, 2, 9)
    ecospa.apply_plan(model, plan_of(model, found.stages[-1].widths))
    assert found.stages[-1].step_flops == accounting.training_flops(model, 2, 9)
    assert found.stages[-1].parameters == accounting.parameters(model)
    assert 0.5 < found.flops_ratio < 1 and 0.5 < found.mean_bytes_ratio < 1
    whole = forecast(model, replace(CURVE, target_size=1.0), Workload(STEPS, batch=2, sequence=9))
    assert whole.flops_ratio == whole.mean_bytes_ratio == 1 and len(whole.stages) == 1


def plan_of(model: Any, widths: Any) -> ecospa.SparsityPlan:
    kept = {
        pair.name: torch.arange(widths[pair.name]).expand(pair.groups, -1)
        for pair in ecospa.coupled_pairs(model)
        if widths[pair.name] < pair.width
    }
    return ecospa.SparsityPlan.build(model, kept)


@pytest.mark.parametrize("precision", ["bf16", "mixed"])
def test_precision_decides_the_bytes(precision: Any) -> None:
    model = build("gpt2").float()
    whole = forecast(model, CURVE, Workload(STEPS)).stages[0]
    other = forecast(model, CURVE, Workload(STEPS, precision=precision)).stages[0]
    assert other.bytes * (2 if precision == "bf16" else 1) == whole.bytes
    momentum = forecast(model, CURVE, Workload(STEPS, optimizer="sgd_momentum")).stages[0]
    assert momentum.optimizer == momentum.weights


def test_too_few_steps_do_not_land() -> None:
    found = forecast(build("gpt2"), CURVE, Workload(steps=10))
    assert not found.landed and found.stages[-1].block_parameters > found.target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be a whole number"),
        ({"batch": 8, "micro_batch": 3}, "micro_batch is 3; it must divide batch, which is 8"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; choose one of adamw"),
        ({"precision": "fp8"}, "precision is 'fp8'; choose one of fp32"),
    ],
)
def test_a_senseless_workload_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Workload(**{"steps": 5, **change})


def language_model(kind: str) -> tuple[Any, dict[str, torch.Tensor]]:
    model = build(kind).float().train()
    tokens = torch.randint(1, 31, (2, 12))
    return model, {"input_ids": tokens, "labels": tokens}


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_a_trace_counts_what_a_real_step_saves_and_multiplies(kind: str) -> None:
    model, batch = language_model(kind)
    meta, empty = weightless(model), {name: value.to("meta") for name, value in batch.items()}
    trace = trace_step(meta, empty)
    # fused kernels compute the scores once more on the way back
    assert trace.flops == pytest.approx(accounting.training_flops(model, 2, 12), rel=0.03)
    seen: dict[int, torch.Tensor] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own and tuple(tensor.shape[-2:]) != (12, 12):
            seen[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**batch).loss
    real = sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
    assert torch.isfinite(loss)
    assert trace.saved == pytest.approx(real, rel=0.1)
    assert trace.trained == accounting.parameters(model)


def test_padding_that_the_kernels_of_a_processor_want_is_counted() -> None:
    model, batch = language_model("llama-gqa")
    pair = next(pair for pair in ecospa.coupled_pairs(model) if pair.kind is ecospa.PairKind.QK)
    kept = unit_positions(pair, torch.arange(1).repeat(pair.groups, 1))
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, {pair.name: kept}))
    empty = {name: value.to("meta") for name, value in batch.items()}
    here, there = weightless(model), weightless(model)
    stand_for(there, "cuda")  # its memory-efficient kernel takes unequal widths
    widths = model.get_submodule(pair.module).geometry
    padded = trace_step(here, empty).flops - trace_step(there, empty).flops
    # queries and keys are as wide as values: one product forwards, three backwards
    wider = widths.vo_width - widths.qk_width
    assert padded == 2 * 2 * widths.query_heads * 12 * 12 * (1 + 3) * wider > 0


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_shapes_that_were_met_before_give_the_same_trace(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = language_model(kind)
    ecospa.apply_plan(model, ecospa.plan_shrink(model, 0.6, target_scope="blocks", width_multiple=1))
    empty = {name: value.to("meta") for name, value in batch.items()}
    remembered = trace_step(weightless(model), empty)
    monkeypatch.setattr(ecospa.trace, "_makes_new", lambda func: False)
    assert trace_step(weightless(model), empty) == remembered


def test_a_smaller_model_is_foretold_to_be_faster_and_not_faster_than_its_arithmetic() -> None:
    device = Device("test", arithmetic=1e12, bandwidth=1e11)
    model, batch = language_model("gpt2")
    empty = {name: value.to("meta") for name, value in batch.items()}
    traces = []
    for target in (None, 0.5):
        if target is not None:
            ecospa.apply_plan(model, ecospa.plan_shrink(model, target, target_scope="blocks", width_multiple=1))
        traces.append(trace_step(weightless(model), empty))
    dense, half = traces
    assert half.flops < dense.flops and half.saved < dense.saved
    assert half.flops / dense.flops - 1e-9 <= step_seconds(half, device) / step_seconds(dense, device) < 1
    update = device.state_accesses * dense.trained * dense.entry_bytes / device.bandwidth
    assert step_seconds(dense, device, passes=3) == pytest.approx(3 * step_seconds(dense, device) - 2 * update)


def test_rates_are_measured_or_known() -> None:
    here = measure_device()
    assert here.arithmetic > 1e8 and here.bandwidth > 1e8 and 0 < here.launch < 1
    assert known_device("h100", torch.float32).arithmetic < known_device("h100", torch.bfloat16).arithmetic
    with pytest.raises(ConfigError, match="device is 'abacus'; choose one of a100"):
        known_device("abacus", torch.float32)
    with pytest.raises(ConfigError, match="model holds real weights"):
        trace_step(*language_model("gpt2"))


def saved_config(folder: Path, **changes: Any) -> str:
    from transformers import LlamaConfig

    shape = {"vocab_size": 32_000, "hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80}
    heads = {"num_attention_heads": 64, "num_key_value_heads": 8}
    LlamaConfig(**{**shape, **heads, **changes}).save_pretrained(folder)
    return str(folder)


def test_seventy_billion_parameters_need_no_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", saved_config(tmp_path), "--target-size", "0.5", "--dtype", "bf16", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    first, last = told["stages"][0], told["stages"][-1]
    assert first["parameters"] == 68_976_648_192
    assert last["parameters"] == pytest.approx(0.5 * first["parameters"], rel=1e-3)
    assert first["weights"] == 2 * first["parameters"] and first["optimizer"] == 4 * first["parameters"]
    assert told["landed"] and told["workload"]["precision"] == "bf16"


def test_the_page_says_what_matters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = saved_config(tmp_path, hidden_size=64, intermediate_size=172, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=100)  # fmt: skip
    assert main(["plan", small, "--target_scope", "blocks", "--device", "h100", "--batch", "4", "--seq", "16"]) == 0
    page = capsys.readouterr().out
    for piece in (
        "to 50% of the dense model's blocks",
        "## Over the run",
        "NVIDIA H100",
        "activations of a pass over 4",
        "| ffn",
    ):
        assert piece in page
    assert main(["plan", small, "--steps", "10", "--start-step", "1", "--end-step", "400"]) == 0
    assert "THE TARGET IS NOT REACHED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target-size", "1.5"], "target_size is 1.5; it must be a share"),
        (["--steps", "1"], "give at least 2 steps, or an end_step"),
        (["--target-size", "0.01"], "target_size is 0.01; the smallest reachable value is"),
        (["--device", "abacus"], "device is 'abacus'; choose one of"),
    ],
)
def test_wrong_arguments_are_refused(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", saved_config(tmp_path, num_hidden_layers=1), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("start", "least"), [(None, 2), (0, 2), (3, 6), (6, 10)])
def test_too_few_steps_are_told_with_the_fewest_that_do(start: int | None, least: int) -> None:
    model = build("gpt2")
    with pytest.raises(ecospa.ConfigError, match=rf"^steps is {least - 1}; .* give at least {least} steps, or"):
        PlanArguments(steps=least - 1, start_step=start).config(model)
    config = PlanArguments(steps=least, start_step=start).config(model)
    assert config.end_step is not None and config.start_step < config.end_step <= least


def test_a_model_that_is_nowhere_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tmp_path / "nothing")]) == 2
    assert "no configuration found" in capsys.readouterr().err


def test_images_and_timm_models_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import ViTConfig

    ViTConfig(num_hidden_layers=2, architectures=["ViTForImageClassification"]).save_pretrained(tmp_path)
    model = empty_model(str(tmp_path))
    assert empty_batch(model, 3, 0)["pixel_values"].shape == (3, 3, 224, 224)
    assert main(["plan", str(tmp_path), "--batch", "2", "--device", "h100"]) == 0
    assert "steps of 2 x 197 tokens" in capsys.readouterr().out
    assert main(["plan", "timm/vit_tiny_patch16_224"]) == 0
    assert main(["plan", "timm/vit_nowhere"]) == 2
    assert "timm has no such model" in capsys.readouterr().err


def test_a_config_that_names_no_class_and_a_model_without_a_loss_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import ViTConfig

    ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64).save_pretrained(
        tmp_path
    )
    assert main(["plan", str(tmp_path)]) == 2
    assert "MODEL has no architectures in its config, and ViTConfig is no language model's" in capsys.readouterr().err
    model, batch = language_model("gpt2")
    empty = {"input_ids": batch["input_ids"].to("meta")}
    with pytest.raises(ConfigError, match="GPT2LMHeadModel, which gives no loss for input_ids"):
        trace_step(weightless(model), empty)


def test_a_width_that_equals_the_length_hides_nothing() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=64, n_positions=64)).eval()

    def bytes_at(length: int) -> int:
        tokens = torch.zeros(2, length, dtype=torch.int64, device="meta")
        return trace_step(weightless(model), {"input_ids": tokens, "labels": tokens}).transient

    below, same, above = (bytes_at(length) for length in (30, 32, 34))
    assert same == pytest.approx((below + above) / 2, rel=0.01)
    assert below < same < above


@pytest.mark.parametrize("interval", [None, 1, 2, 5, 7, 100])
@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 30), (3, 24), (10, 17), (7, 400)])
def test_the_next_event_is_found_without_counting_steps(interval: int | None, start: int, end: int) -> None:
    simulation = Simulation(build("gpt2").float(), replace(CURVE, start_step=start, end_step=end, interval=interval))
    found, step = [], 0
    while step < end:
        step = simulation._next(step, 0, end)
        found.append(step)
    assert found == [step for step in range(1, end + 1) if simulation.schedule.due(step)]


def test_the_number_of_steps_costs_no_time() -> None:
    model = build("gpt2").float()
    long = 10**12
    for config in (
        replace(CURVE, start_step=long // 20, end_step=long * 3 // 4, interval=None),
        replace(PAPER, interval=100),
        replace(PAPER, interval=None, end_step=long * 3 // 4),
    ):
        found = forecast(model, config, Workload(long, batch=2, sequence=9))
        assert found.steps == long and len(found.stages) < 200


@pytest.mark.parametrize(
    "config",
    [
        replace(CURVE, start_step=0, end_step=10**12, interval=100),
        replace(PAPER, interval=None, end_step=10**12, top_k=1e-320),
    ],
)
def test_more_events_than_can_be_followed_are_refused_at_once(config: EcoSpaConfig) -> None:
    with pytest.raises(ConfigError, match="a forecast follows no more; "):
        forecast(build("gpt2").float(), config, Workload(10**12, batch=2, sequence=9))


@pytest.mark.parametrize("field", ["steps", "batch", "sequence"])
@pytest.mark.parametrize("value", [0, -1, 10**400, 1e12, True, "8", None])
def test_a_workload_names_its_range(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{field} is .*; it must be a whole number from 1 to 1000"):
        Workload(**{"steps": 10, field: value})


@pytest.mark.parametrize("value", [0, -2, 3, "4", 2.0])
def test_a_micro_batch_divides_the_batch(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"micro_batch is .* it must divide batch, which is 8"):
        Workload(10, batch=8, micro_batch=value)
