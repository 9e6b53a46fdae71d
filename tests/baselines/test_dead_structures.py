"""baselines.dead_structures: zero where they are read, frozen elsewhere, and cut without a trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from ecospa.accounting import parameters
from tests.baselines.image_runs import KINDS, ImageRun, columns, images, parts, rows
from tests.model_zoo import build, logits


def dead(run: ImageRun) -> list[tuple[dict[str, Any], int]]:
    """All dead structures."""
    found = []
    for name, part in parts(run.model, run.kind).items():
        found += [(part, n) for n in range(part["count"]) if n not in run.live[name].tolist()]
    return found


def input_values(run: ImageRun) -> list[Tensor]:
    """Weights and biases on the input side of all dead structures."""
    values = []
    for part, number in dead(run):
        for module, offset in part["inputs"]:
            own = (module.weight,) if module.bias is None else (module.weight, module.bias)
            values += [value.detach()[rows(part, number, offset)].clone() for value in own]
    return values


@pytest.mark.parametrize("kind", ["vit", "timm-vit", "timm-qk-norm"])
def test_what_is_dead_is_zero_where_it_is_read_and_frozen_elsewhere(kind: str) -> None:
    run = ImageRun.fresh(kind, interval=4)
    changed = False
    for step in range(1, 12):
        before, live = input_values(run), copy.deepcopy(run.live)
        run.backward()
        for part, number in dead(run):  # before clipping
            assert not part["output"].weight.grad[:, columns(part, number)].any()
            for module, offset in part["inputs"]:
                assert not module.weight.grad[rows(part, number, offset)].any()
        dying = dead(run)
        run.update()
        for part, number in dead(run):
            assert not part["output"].weight[:, columns(part, number)].any()
            for value in run.optimizer.state[part["output"].weight].values():
                if value.ndim:
                    assert not value[:, columns(part, number)].any()
        if all(torch.equal(live[name], run.live[name]) for name in live):
            assert all(torch.equal(*both) for both in zip(before, input_values(run), strict=True)), step
        else:
            changed = True
            assert len(dead(run)) == len(dying)
    assert changed


@pytest.mark.parametrize("kind", KINDS)
def test_cutting_changes_nothing_but_the_size(kind: str) -> None:
    run = ImageRun.fresh(kind, torch.float64).train(12)
    run.model.eval()
    with torch.no_grad():
        before = logits(run.model, images(kind, 0, torch.float64))
        run.finish()
        after = logits(run.model, images(kind, 0, torch.float64))
    assert torch.allclose(before, after, rtol=1e-10, atol=1e-12)
    assert parameters(run.model, "blocks") < 0.51 * parameters(build(kind), "blocks")
    for parameter in run.model.parameters():
        assert run.optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    history = copy.deepcopy(run.method.history)
    run.finish()  # a second call changes nothing
    run.model.train()
    run.train(14)  # and what is left still trains
    assert run.method.history == history
    assert run.losses[-1] < run.losses[0]
