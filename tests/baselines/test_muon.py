"""Muon: the step is U V^T of the averaged gradient within what Newton-Schulz leaves open, of AdamW's size."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from baselines.muon import Muon
from tests.baselines.optimizers import DECAY, RATE, TRAINED, random
from tests.baselines.runs import tiny_gpt2
from tests.model_zoo import build


def test_a_step_is_the_orthogonal_factor_of_the_momentum() -> None:
    model = build("llama-gqa").float()
    optimizer = Muon(TRAINED).build_optimizer(model)
    weight = model.model.layers[0].mlp.up_proj.weight
    average = torch.zeros_like(weight)
    for step in range(4):
        gradient = random(*weight.shape, seed=step).float()
        average = 0.95 * average + 0.05 * gradient
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        size = RATE * 0.2 * math.sqrt(max(weight.shape))
        update = (before * (1 - RATE * DECAY) - weight.detach()) / size
        left, _, right = torch.linalg.svd(0.95 * average + 0.05 * gradient, full_matrices=False)
        # five steps of the quintic leave the singular values of full-rank matrices in about [0.6, 1.25]
        values = torch.diag(left.T @ update @ right.T)
        assert float(values.min()) > 0.5 and float(values.max()) < 1.3
        rest = update - left @ torch.diag(values) @ right
        assert rest.norm() < 0.05 * update.norm()


def test_matrices_of_the_blocks_have_one_moment_and_the_rest_two() -> None:
    model = tiny_gpt2()
    optimizer = Muon(replace(TRAINED, seed=1)).build_optimizer(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        inside = ".h." in name and parameter.ndim == 2
        assert ("momentum_buffer" in optimizer.state[parameter]) == inside, name
        assert ("exp_avg_sq" in optimizer.state[parameter]) != inside, name
