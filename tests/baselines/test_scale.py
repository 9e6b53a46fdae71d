"""SCALE: every output's gradient has root mean square one, momentum in the head alone, and hardly any state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from baselines.scale import Scale, last_layer, matrix_groups
from tests.baselines.optimizers import DECAY, RATE, TRAINED, random
from tests.model_zoo import build


def steps(model: Any, count: int) -> tuple[dict[str, list[torch.Tensor]], Any]:
    """Parameters before and after every step, and the optimizer; gradients are those of `random`."""
    optimizer = Scale(TRAINED).build_optimizer(model)
    seen = {name: [parameter.detach().clone()] for name, parameter in model.named_parameters()}
    for step in range(count):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = random(*parameter.shape, seed=1000 * step + number)
        optimizer.step()
        for name, parameter in model.named_parameters():
            seen[name].append(parameter.detach().clone())
    return seen, optimizer


@pytest.mark.parametrize("kind", ["llama-gqa", "gpt2"])
def test_steps_are_the_papers(kind: str) -> None:
    model = build(kind)
    names = [name for name, _ in model.named_parameters()]
    seen, optimizer = steps(model, 3)
    head = "lm_head.weight" if kind == "llama-gqa" else "transformer.wte.weight"  # GPT-2's is tied
    averages: dict[str, torch.Tensor] = {}
    checked = 0
    for name, values in seen.items():
        if values[0].ndim != 2:
            continue
        checked += 1
        # (in, out): an embedding, or a Conv1D of GPT-2
        turned = name != head and ("embed" in name or "wpe" in name or kind == "gpt2")
        for step in range(3):
            gradient = random(*values[0].shape, seed=1000 * step + names.index(name))
            if name == head:
                averages[name] = 0.9 * averages.get(name, torch.zeros_like(gradient)) + 0.1 * gradient
                gradient = averages[name]
            expected = values[step] * (1 - RATE * DECAY)
            for unit in range(gradient.shape[1] if turned else gradient.shape[0]):
                own = gradient[:, unit] if turned else gradient[unit]
                norm = math.sqrt(sum(float(entry) ** 2 for entry in own) / len(own))
                if turned:
                    expected[:, unit] -= RATE * own / norm
                else:
                    expected[unit] -= RATE * own / norm
            assert (values[step + 1] - expected).abs().max() < 1e-12, name
    assert checked >= 10
    sizes = {name: len(optimizer.state[parameter]) for name, parameter in model.named_parameters()}
    assert {name for name, size in sizes.items() if size == 1} == {head}
    assert {name for name, size in sizes.items() if size > 1} == {n for n, values in seen.items() if values[0].ndim < 2}


@pytest.mark.parametrize(
    ("kind", "last"), [("llama-gqa", "lm_head"), ("gpt2", "lm_head"), ("bert", "cls.predictions.decoder"),
                       ("timm-vit", "head"), ("vit", "classifier")]
)  # fmt: skip
def test_the_last_layer_is_the_head(kind: str, last: str) -> None:
    model = build(kind)
    assert last_layer(model) is model.get_submodule(last)
    groups = matrix_groups(model)
    with_momentum = [parameter for group in groups if group["momentum"] for parameter in group["params"]]
    assert len(with_momentum) == 1 and with_momentum[0] is model.get_submodule(last).weight
    parameters = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(parameters) == len(set(parameters))


def test_what_is_frozen_stays() -> None:
    model = build("llama-gqa")
    model.lm_head.weight.requires_grad_(False)
    assert not [group for group in matrix_groups(model) if group["momentum"]]
