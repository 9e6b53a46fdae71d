"""FLOPs that are counted while a model runs are those of its shapes."""

from __future__ import annotations

import pytest
import torch

from benchmarks.metrics import flops
from ecospa import accounting
from tests.baselines.runs import Run, tiny_gpt2
from tests.model_zoo import build


def one(length: int) -> dict[str, torch.Tensor]:
    tokens = torch.zeros(1, length, dtype=torch.int64)
    return {"input_ids": tokens, "labels": tokens}


@pytest.mark.parametrize("kind", ["gpt2", "llama-gqa"])
def test_counting_agrees_with_the_shapes(kind: str) -> None:
    model = build(kind)
    before, state = model.state_dict(), torch.get_rng_state()
    forward, step = (flops._counted(model, one(9), training=training) for training in (False, True))
    assert forward == pytest.approx(accounting.forward_flops(model, 1, 9), rel=0.02)
    assert step == pytest.approx(accounting.training_flops(model, 1, 9), rel=0.05)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and not model.training


def test_a_rebuilt_model_is_counted_too() -> None:
    from dataclasses import replace

    import baselines
    from tests.baselines.runs import BUDGET

    run = Run.fresh(baselines.load("slicegpt"), replace(BUDGET, target_size=0.6)).finish()
    whole = tiny_gpt2()
    assert 0 < flops.forward_flops(run.model, 12, one(12)) < flops.forward_flops(whole, 12, one(12))
    assert 0 < flops.step_flops(run.model, 2, 12, one(12)) < flops.step_flops(whole, 2, 12, one(12))
