"""The generic tests on images: every method defined for ViT or timm's ViT trains, lands, repeats and is saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import baselines
from baselines.calibration import Calibration, batch_loss
from baselines.method import TrainingMethod, TrainingState
from ecospa.accounting import parameters
from tests.baselines.runs import BUDGET, adamw, assert_same_weights, largest_step
from tests.model_zoo import build, logits

TARGET = 0.6
FAMILY = {"vit": "vit", "timm-vit": "timm_vit"}
NOT_AT_TARGET = (
    *(name for name, method in baselines.methods().items() if method.removes == "nothing" and name != "small_dense"),
    *("ecospa_own_pace", "shortgpt"),
)
"""Those without a target, one with a pace of its own, and one that removes whole blocks, of which there are two."""
CASES = [
    pytest.param(kind, name, marks=pytest.mark.slow if kind == "vit" else ())
    for kind, family in FAMILY.items()
    for name, method in baselines.methods().items()
    if family in method.architectures
]


def batch(kind: str, step: int) -> dict[str, Tensor]:
    """Four small images and their classes."""
    generator = torch.Generator().manual_seed(500 + step)
    images = torch.randn(4, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 5, (4,), generator=generator)
    return {"x" if kind == "timm-vit" else "pixel_values": images, "labels": labels}


def run(kind: str, name: str) -> tuple[Any, TrainingMethod, list[float]]:
    """Twelve AdamW steps and the end."""
    method_type = baselines.load(name)
    model = build(kind).float().train()
    size = method_type.only_size(model, "blocks")
    method = method_type(replace(BUDGET, target_size=TARGET if size is None else size))
    data = Calibration(tuple(batch(kind, step) for step in range(100, 104)), "random images", 0)
    other = method.prepare(model, data)
    model = model if other is None else other
    optimizer = method.build_optimizer(model) or adamw(model)
    losses = []
    for step in range(12):
        loss = batch_loss(model, batch(kind, step % 3))
        loss.backward()
        method.after_backward(TrainingState(model, optimizer, step, 12, data))
        optimizer.step()
        method.after_step(TrainingState(model, optimizer, step + 1, 12, data))
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    method.finish(TrainingState(model, optimizer, 12, 12, data))
    return model, method, losses


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_it_trains_lands_repeats_itself_and_is_saved(kind: str, name: str, tmp_path: Path) -> None:
    if name == "torch_pruning":
        pytest.importorskip("torch_pruning", reason="needs the extra 'peers'")
    model, method, losses = run(kind, name)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert min(losses[3:]) < losses[0]  # ReLoRA jumps at a reset so close to the end
    whole = build(kind).float()
    kept, target = method.nonzero_parameters(model)[1], method.budget.target_size
    assert target is not None
    if name not in NOT_AT_TARGET:
        tolerance = max(0.01 * parameters(whole, "blocks"), largest_step(whole, 2))
        assert 0 <= kept - round(target * parameters(whole, "blocks")) <= tolerance, kept / parameters(whole, "blocks")
    again, _, same = run(kind, name)
    assert losses == same
    assert_same_weights(model, again)
    method.save(model, tmp_path)
    loaded: nn.Module = method.load(tmp_path, build(kind).float())
    with torch.no_grad():
        given = {key: value for key, value in batch(kind, 9).items() if key != "labels"}
        assert torch.equal(logits(loaded.eval(), given), logits(model.eval(), given))
    loss = batch_loss(loaded.train(), batch(kind, 9))
    loss.backward()
    assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in loaded.parameters())


def test_most_methods_are_defined_for_images() -> None:
    defined = {case.values[1] for case in CASES}
    assert {"svite", "torch_pruning", "sparsegpt", "movement", "ecospa", "small_dense"} <= defined
    assert "slicegpt" not in defined
