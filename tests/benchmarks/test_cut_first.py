"""A one-shot method before the training: what it cut or masked stays so, and the rest learns as if by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import baselines
from baselines.method import TrainingState
from benchmarks.experiment import MethodRef
from benchmarks.training.compress import compress, one_event_method
from benchmarks.training.prune_then_train import PruneThenTrain
from tests.baselines.runs import CALIBRATION, tiny_gpt2, tokens

MASKS = ("wanda", "sparsegpt", "magnitude_one_shot")
STRUCTURES = ("surgeon", "flap", "slicegpt")
STEPS = 4


def cut(name: str) -> tuple[PruneThenTrain, nn.Module]:
    """A method at half of the blocks, and the model that it has cut."""
    model = tiny_gpt2()
    method = PruneThenTrain(one_event_method(MethodRef(name), 0.5, 2, model, seed=3))
    return method, method.prepare(model, CALIBRATION)


def train(model: Any, method: PruneThenTrain, first: int = 0, steps: int = STEPS, optimizer: Any = None) -> Any:
    """Steps of AdamW with the method's hooks."""
    assert method.build_optimizer(model) is None
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    for step in range(first, first + steps):
        model(input_ids=tokens(step), labels=tokens(step)).loss.backward()
        method.after_backward(TrainingState(model, optimizer, step, STEPS))
        optimizer.step()
        method.after_step(TrainingState(model, optimizer, step + 1, STEPS))
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("name", MASKS + STRUCTURES)
def test_before_the_training_it_is_the_one_shot_method_itself(name: str) -> None:
    method, model = cut(name)
    plain = tiny_gpt2()
    expected = compress(one_event_method(MethodRef(name), 0.5, 2, plain, seed=3), plain, CALIBRATION)
    found, wanted = model.state_dict(), expected.state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert model.training  # it is about to be trained
    assert method.name == name and method.stage == "training"


@pytest.mark.parametrize("name", MASKS + STRUCTURES)
def test_its_size_stays_and_the_rest_learns(name: str) -> None:
    method, model = cut(name)
    size, before = method.nonzero_parameters(model), copy.deepcopy(model.state_dict())
    optimizer = train(model, method)
    method.finish(TrainingState(model, optimizer, STEPS, STEPS, CALIBRATION))
    assert method.nonzero_parameters(model) == size
    assert [event["step"] for event in method.history] == [0, 1]
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    for key, mask in (method.masks.removed if method.masks is not None else {}).items():
        assert mask.any() and not model.get_parameter(key)[mask].any()


def test_masked_training_equals_training_by_hand() -> None:
    method, model = cut("wanda")
    by_hand = copy.deepcopy(model)
    assert method.masks is not None
    train(model, method)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=3e-3, weight_decay=0.1)
    for step in range(STEPS):
        by_hand(input_ids=tokens(step), labels=tokens(step)).loss.backward()
        for name, mask in method.masks.removed.items():
            by_hand.get_parameter(name).grad[mask] = 0
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), by_hand.parameters(), strict=True))


@pytest.mark.parametrize("name", ["wanda", "flap", "slicegpt"])
def test_a_resumed_training_goes_on_the_same(name: str, tmp_path: Path) -> None:
    whole_method, whole = cut(name)
    train(whole, whole_method)
    method, model = cut(name)
    optimizer = train(model, method, 0, 2)
    method.save(model, tmp_path)
    state, moments = method.state_dict(), copy.deepcopy(optimizer.state_dict())
    again = PruneThenTrain(one_event_method(MethodRef(name), 0.5, 2, tiny_gpt2(), seed=3))
    again.load_state_dict(state)
    resumed = again.load(tmp_path, tiny_gpt2())
    resumed.train()
    optimizer = torch.optim.AdamW(resumed.parameters(), lr=3e-3, weight_decay=0.1)
    optimizer.load_state_dict(moments)
    train(resumed, again, 2, 2, optimizer)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert again.history == whole_method.history


def test_a_method_that_shrinks_while_it_trains_is_refused() -> None:
    method = one_event_method(MethodRef("ecospa"), 0.5, 2, tiny_gpt2(), seed=0)
    with pytest.raises(ValueError, match=r"ecospa is of stage 'training'; only a one-shot method can be cut first"):
        PruneThenTrain(method)
    assert baselines.load("ecospa").stage == "training"
