"""Cuts of models with optimizer and average: short of memory, of unusual weights, in every mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ecospa
from ecospa import PlanError, SparsityPlan, apply_plan
from ecospa.surgery import add_biases, keep_heads
from tests.ecospa.cut_models import loss_of, step, training
from tests.ecospa.model_state import differences, state_of
from tests.model_zoo import build, random_plan


def short_after(monkeypatch, calls, error):
    """Let memory run out when the given number of tensors has been made."""
    from ecospa import surgery

    made, sliced = [], surgery.sliced

    def failing(*arguments):
        made.append(None)
        if len(made) > calls:
            raise error
        return sliced(*arguments)

    monkeypatch.setattr(surgery, "sliced", failing)


SHORTAGES = (
    MemoryError("no memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
)


@pytest.mark.parametrize("error", SHORTAGES)
def test_where_memory_is_short_nothing_is_changed_and_the_way_out_is_named(monkeypatch, error):
    model, optimizer, average, _ = training("gpt2")
    before, plan = state_of(model, optimizer, (average,)), random_plan(model, 5)
    short_after(monkeypatch, 9, error)
    with pytest.raises(type(error), match=r"nothing has been changed; .*by_block=True") as caught:
        apply_plan(model, plan, optimizer, (average,))
    assert str(error) in str(caught.value)
    assert differences(before, state_of(model, optimizer, (average,))) == []


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_by_block_comes_to_the_same(kind):
    whole, parts = training(kind), training(kind)
    plan = random_plan(whole[0], 5)
    apply_plan(whole[0], plan, whole[1], (whole[2],))
    apply_plan(parts[0], plan, parts[1], (parts[2],), by_block=True)
    assert differences(state_of(whole[0], whole[1], (whole[2],)), state_of(parts[0], parts[1], (parts[2],))) == []


def test_by_block_stops_between_blocks_and_says_what_is_left(monkeypatch):
    model, optimizer, average, _ = training("gpt2")
    plan = random_plan(model, 5)
    tensors = sum(2 * len({axis.parameter for axis in pair.axes}) for pair in ecospa.coupled_pairs(model))
    with monkeypatch.context() as patch:
        short_after(patch, tensors, SHORTAGES[1])  # model and follower of the first block are fewer than these
        with pytest.raises(torch.OutOfMemoryError, match="nothing of this block") as caught:
            apply_plan(model, plan, optimizer, (average,), by_block=True)
    assert "already cut, each as a whole: transformer.h.0; plan.remaining(model)" in caught.value.__notes__[0]
    widths = {pair.name: pair.width for pair in ecospa.coupled_pairs(model)}
    assert {name for name in plan.kept if widths[name] != plan.widths[name]} == {n for n in plan.kept if ".h.0." in n}
    assert model.config.ecospa["widths"] == widths
    loss_of(model, "gpt2", 7).backward()
    optimizer.step()
    apply_plan(model, plan.remaining(model), optimizer, (average,))
    assert {pair.name: pair.width for pair in ecospa.coupled_pairs(model)} == plan.widths_after()
    average.update_parameters(model)


def test_a_graph_from_before_the_cut_says_so():
    model = build("gpt2")
    loss = loss_of(model, "gpt2", 1)
    apply_plan(model, random_plan(model, 5))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def flat(model):
    vector = nn.utils.parameters_to_vector(model.parameters()).detach()
    nn.utils.vector_to_parameters(vector, model.parameters())


def transposed(model):
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data = parameter.data.t().contiguous().t()


def frozen(model):
    model.requires_grad_(False)


def low_precision(model):
    model.transformer.h[0].mlp.to(torch.bfloat16)
    model.transformer.h[1].mlp.c_fc.weight.data = model.transformer.h[1].mlp.c_fc.weight.data.to(torch.float8_e4m3fn)


def gradient_of_another_type(model):
    weight = model.to(torch.bfloat16).transformer.h[0].mlp.c_fc.weight
    weight.grad_dtype = torch.float32
    weight.grad = torch.randn(weight.shape)


@pytest.mark.parametrize("change", [flat, transposed, frozen, low_precision, gradient_of_another_type])
def test_unusual_weights_are_cut_exactly(change):
    model, plain = build("gpt2"), build("gpt2")
    plan = random_plan(model, 5)
    change(model)
    dtypes = [parameter.dtype for parameter in model.parameters()]
    apply_plan(model, plan)
    apply_plan(plain, plan)
    assert [parameter.dtype for parameter in model.parameters()] == dtypes
    cut_ones = {axis.parameter for pair in ecospa.coupled_pairs(plain) if pair.name in plan.kept for axis in pair.axes}
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.double(), theirs.to(mine.dtype).double()), name
        assert mine.grad is None or mine.grad.shape == mine.shape
        if name in cut_ones:
            assert mine.untyped_storage().nbytes() == mine.numel() * mine.element_size(), name


def under_inference_mode(work):
    with torch.inference_mode():
        work()


def under_another_default_device(work):
    torch.set_default_device("meta")
    try:
        work()
    finally:
        torch.set_default_device(None)


def under_deterministic_algorithms(work):
    torch.use_deterministic_algorithms(True)
    try:
        work()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("around", [under_inference_mode, under_another_default_device, under_deterministic_algorithms])
def test_the_mode_around_a_cut_does_not_matter(around):
    mine, wanted = training("llama-gqa"), training("llama-gqa")
    text = random_plan(wanted[0], 5).to_json()

    def work():
        apply_plan(mine[0], SparsityPlan.from_json(text), mine[1], (mine[2],))

    around(work)
    apply_plan(wanted[0], SparsityPlan.from_json(text), wanted[1], (wanted[2],))
    assert differences(step("llama-gqa", *wanted[:3]), step("llama-gqa", *mine[:3])) == []


@pytest.mark.parametrize("heads", [None, "all", [[0]], [0.5], [True], [10**30], object()])
def test_heads_that_are_no_numbers_are_refused(heads):
    unchecked = getattr(keep_heads, "__wrapped__", keep_heads)  # without the check of shapes, which stops some before
    with pytest.raises(PlanError):
        unchecked(build("gpt2"), {"transformer.h.0.attn": heads})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transformer.h.9.mlp.c_proj", torch.zeros(32)),
        ("transformer.h.0", torch.zeros(32)),
        ("transformer.h.0.mlp.c_proj", torch.zeros(32, dtype=torch.int64)),
        ("transformer.h.0.mlp.c_proj", [0.0] * 32),
        ("transformer.h.0.mlp.c_proj", torch.zeros(1, 32)),
    ],
)
def test_senseless_biases_are_refused(name, value):
    unchecked = getattr(add_biases, "__wrapped__", add_biases)
    with pytest.raises(PlanError):
        unchecked(build("gpt2"), {name: value})
