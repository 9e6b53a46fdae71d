"""Weights that no cut would leave the same function or training are refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ecospa
from ecospa import SparsityPlan, UnsupportedModelError, apply_plan
from ecospa.surgery import add_biases, keep_heads
from tests.model_zoo import build, random_plan


def inference_tensors(model):
    with torch.inference_mode():
        model.transformer.h[0].mlp.c_fc.weight = nn.Parameter(torch.randn(32, 128, dtype=torch.float64))


def same_memory(model):
    model.transformer.h[1].mlp.c_fc.weight.data = model.transformer.h[0].mlp.c_fc.weight.data


def views_that_overlap(model):
    values = torch.randn(33 * 128, dtype=torch.float64)
    for start, block in enumerate(model.transformer.h):
        block.mlp.c_fc.weight.data = values[64 * start :][: 32 * 128].view(32, 128)


def sparse_gradient(model):
    weight = model.transformer.h[0].mlp.c_fc.weight
    weight.grad = torch.zeros_like(weight).to_sparse()


def subclass(model):
    model.transformer.h[0].mlp.c_fc.bias = nn.Parameter(
        torch.randn(128, dtype=torch.float64).as_subclass(type("Own", (torch.Tensor,), {}))
    )


def parametrised_bias(model):
    nn.utils.parametrize.register_parametrization(model.transformer.h[0].mlp.c_fc, "bias", nn.Identity())


def half_without_weights(model):
    model.transformer.h[1].to("meta")


def offloaded(model):
    from accelerate import cpu_offload

    cpu_offload(model, execution_device=torch.device("cpu"))


def offloaded_in_part(model):
    from accelerate import dispatch_model

    dispatch_model(model, {"transformer": "cpu", "lm_head": "cpu"}, main_device="cpu", force_hooks=True)
    half_without_weights(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (inference_tensors, r"h\.0\.mlp\.c_fc\.weight: it is an inference tensor"),
        (same_memory, "lies in the same memory as"),
        (views_that_overlap, "lies in the same memory as"),
        (sparse_gradient, r"h\.0\.mlp\.c_fc\.weight: its gradient is torch\.sparse_coo"),
        (subclass, r"c_fc\.bias: it is a .*Own"),
        (parametrised_bias, r"c_fc: it is a .*ParametrizedConv1D"),
        (half_without_weights, r"h\.1\..*: its values are not here"),
        (offloaded, "weight: its values are not here"),
        (offloaded_in_part, r"h\.1\..*: its values are not here"),
    ],
)
def test_weights_that_cannot_be_cut_exactly_are_refused_by_name(change, message):
    model = build("gpt2")
    plan = random_plan(model, 5)
    change(model)
    shapes = [parameter.shape for parameter in model.parameters()]
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        apply_plan(model, plan)
    assert "Way out" in str(caught.value)
    assert [parameter.shape for parameter in model.parameters()] == shapes


def test_planning_for_offloaded_weights_is_refused_by_name():
    model = build("gpt2")
    offloaded(model)
    with pytest.raises(UnsupportedModelError, match=r"weight: its values are not here.*Way out"):
        ecospa.plan_shrink(model, 0.9, target_scope="blocks", width_multiple=1)
    with pytest.raises(UnsupportedModelError, match=r"weight: its values are not here.*Way out"):
        SparsityPlan.build(model, {})


def test_replicas_are_refused_by_name():
    model = build("gpt2")
    plan = random_plan(model, 5)
    for use in (
        lambda wrapped: apply_plan(wrapped, plan),
        lambda wrapped: SparsityPlan.build(wrapped, {}),
        lambda wrapped: ecospa.plan_shrink(wrapped, 0.9, target_scope="blocks", width_multiple=1),
        lambda wrapped: keep_heads(wrapped, {}),
        lambda wrapped: add_biases(wrapped, {}),
    ):
        with pytest.raises(UnsupportedModelError, match=r"DataParallel: .*Way out"):
            use(nn.DataParallel(model))
