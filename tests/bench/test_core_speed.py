"""Speed of the hot paths, as ratios measured in one interleaved run: estimator, plan, surgery, a smaller model.

Run by `tox run -e bench`. Nothing absolute is asserted: every limit is a ratio to the dense training step or forward
pass of the same model, timed alternately with it in the same process.
"""

from __future__ import annotations

import copy

import pytest
import torch

import ecospa
from benchmarks.timing.candidates import swap_classes
from ecospa.accounting import forward_flops
from tests.bench.timing import MODELS, examples, forward, interleaved, positions, training

pytestmark = pytest.mark.bench
TEXT = ("gpt2", "llama")


@pytest.mark.parametrize("kind", TEXT)
def test_the_estimator_is_a_small_part_of_a_step(benchmark, tell, kind):
    model = MODELS[kind]()
    assert sum(p.numel() for p in model.parameters()) >= 10_000_000
    _, step = training(kind, model)
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.grad = torch.randn_like(parameter)
    estimator = ecospa.CoupledEstimator(twin, ecospa.coupled_pairs(twin))
    seconds = interleaved(benchmark, {"step": step, "estimator": estimator.update})
    tell(f"{kind}: estimator / training step", seconds["estimator"], seconds["step"], limit=0.02, promised=0.01)


@pytest.mark.parametrize("kind", TEXT)
def test_an_event_costs_a_small_part_of_a_step(benchmark, tell, kind):
    model = MODELS[kind]()
    _, step = training(kind, copy.deepcopy(model))
    optimizer, own_step = training(kind, model)
    own_step()
    # a target out of reach of these rounds: every event cuts, none is the last
    config = ecospa.EcoSpaConfig(
        interval=1, target_size=0.2, target_scope="blocks", width_multiple=1, importance_threshold=0.9
    )
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)

    def gradients():
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        sparsity.after_backward()
        optimizer.step()  # an event needs a step that was taken

    seconds = interleaved(benchmark, {"step": step, "event": sparsity.after_step}, before=gradients)
    assert len(sparsity.history) == len(seconds["event"]) + 3
    tell(f"{kind}: event / training step", seconds["event"], seconds["step"], limit=0.5, promised=1.0)


@pytest.mark.parametrize("kind", TEXT)
def test_plan_and_surgery_to_half_cost_less_than_a_step(benchmark, tell, kind):
    model = MODELS[kind]()
    optimizer, step = training(kind, model)
    step()
    plan = ecospa.plan_shrink(model, 0.5, target_scope="blocks")
    fresh = {}

    def whole_again():
        fresh["model"], fresh["optimizer"] = copy.deepcopy((model, optimizer))

    seconds = interleaved(
        benchmark,
        {
            "step": step,
            "plan": lambda: ecospa.plan_shrink(model, 0.5, target_scope="blocks"),
            "surgery": lambda: ecospa.apply_plan(fresh["model"], plan, fresh["optimizer"]),
        },
        before=whole_again,
    )
    assert sum(p.numel() for p in fresh["model"].parameters()) == plan.parameters_after
    for part in ("plan", "surgery"):
        tell(f"{kind}: {part} to half / training step", seconds[part], seconds["step"], limit=0.3)


@pytest.mark.parametrize("kind", MODELS)
def test_half_of_the_blocks_trains_and_infers_as_its_operations_say(benchmark, tell, kind):
    dense = MODELS[kind]()
    swapped, half = copy.deepcopy(dense), copy.deepcopy(dense)
    swap_classes(swapped)
    ecospa.apply_plan(half, ecospa.plan_shrink(half, 0.5, target_scope="blocks"))
    models = {"dense": dense, "swapped": swapped, "half": half}
    steps = {f"{name} step": training(kind, model)[1] for name, model in models.items()}
    passes = {f"{name} pass": forward(kind, model) for name, model in models.items()}
    seconds = interleaved(benchmark, steps | passes)
    flops = forward_flops(half, examples(kind), positions(kind)) / forward_flops(dense, examples(kind), positions(kind))
    benchmark.extra_info["flop_ratio"] = round(flops, 4)
    assert 0.48 < flops < 0.6, "half of the blocks, and embeddings and head whole"
    steps, passes = ([seconds[f"{name} {what}"] for name in models] for what in ("step", "pass"))
    name = f"{kind}, half of the blocks / dense"
    tell(f"{name}: training step, over operations", steps[2], steps[0], 1.3, promised=1.05, per=flops)
    tell(f"{name}: inference, over operations", passes[2], passes[0], 1.35, promised=1.10, per=flops)
    tell(f"{kind}, classes swapped / dense: training step", steps[1], steps[0], 1.1, promised=1.02)
    tell(f"{kind}, classes swapped / dense: inference", passes[1], passes[0], 1.1, promised=1.02)
