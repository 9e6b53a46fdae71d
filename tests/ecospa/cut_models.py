"""Models in the middle of a training, for the tests of surgery."""

from __future__ import annotations

import copy
import functools

import torch

from ecospa import apply_plan
from ecospa.exactness import require_exact
from tests.ecospa.model_state import state_of
from tests.model_zoo import build, inputs, logits


def loss_of(model, kind, seed):
    return logits(model, inputs(kind, seed=seed)).square().mean()


@functools.cache
def original(kind):
    """A model in the middle of training: optimizer state, and a moving average."""
    model = build(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for seed in range(2):
        optimizer.zero_grad()
        loss_of(model, kind, seed).backward()
        optimizer.step()
    return model, optimizer, torch.optim.swa_utils.AveragedModel(model)


def training(kind):
    """A copy of it, with gradients and a graph that are alive."""
    model, optimizer, average = copy.deepcopy(original(kind))
    optimizer.zero_grad()
    loss_of(model, kind, 2).backward()
    for part in (model, average.module):  # the zoo's norms are its own: tried once, before anything is thrown
        require_exact(part, apply_plan)
    return model, optimizer, average, loss_of(model, kind, 3)


def step(kind, model, optimizer, average):
    optimizer.step()
    optimizer.zero_grad()
    loss_of(model, kind, 4).backward()
    optimizer.step()
    average.update_parameters(model)
    return state_of(model, optimizer, (average,))
