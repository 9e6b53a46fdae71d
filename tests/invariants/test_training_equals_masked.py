"""Invariant 2: training after the cut is training the masked dense model; with dropped optimizer state it is not."""

import copy

import pytest
import torch

import ecospa
from tests.model_zoo import ZOO, build, inputs, logits, random_plan, removed_masks, zeroed

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=False),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True, weight_decay=1e-2),
}
SHORT = ["gpt2", "llama-gqa", "qwen3", "bert", "vit", "timm-vit", "timm-qk-norm"]


def loss_of(model, kind, step):
    """Cross entropy from the logits: transformers' own loss casts to float32."""
    output = logits(model, inputs(kind, seed=step))
    classes = output.reshape(-1, output.shape[-1])
    generator = torch.Generator().manual_seed(step)
    targets = torch.randint(0, classes.shape[-1], (classes.shape[0],), generator=generator)
    return torch.nn.functional.cross_entropy(classes, targets)


def train(model, optimizer, kind, steps, masks=()):
    """Plain training; with masks, gradients and weights of removed entries stay zero."""
    for step in steps:
        loss = loss_of(model, kind, step)
        loss.backward()
        for parameter, mask in zip(model.parameters(), masks, strict=False):
            parameter.grad.mul_(mask)
        optimizer.step()
        with torch.no_grad():
            for parameter, mask in zip(model.parameters(), masks, strict=False):
                parameter.mul_(mask)
        optimizer.zero_grad()
    return loss  # kept alive by the caller on purpose: its graph holds nodes with the old shapes


def difference(kind, make, drop_state=False):
    """Largest logit difference after a cut and eight more steps, against the masked dense model."""
    model = build(kind)
    optimizer = make(model.parameters())
    alive = train(model, optimizer, kind, range(4))
    plan = random_plan(model, 17)
    reference, masks = zeroed(model, plan), list(removed_masks(model, plan).values())
    masked_optimizer = make(reference.parameters())
    masked_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    ecospa.apply_plan(model, plan, optimizer)
    if drop_state:
        optimizer = make(model.parameters())
    train(model, optimizer, kind, range(4, 12))
    train(reference, masked_optimizer, kind, range(4, 12), masks)
    assert alive.isfinite()
    with torch.no_grad():
        batch = inputs(kind, seed=99)
        return float((logits(model, batch) - logits(reference, batch)).abs().max())


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_after_the_cut_equals_masked_training(kind, optimizer):
    assert difference(kind, OPTIMIZERS[optimizer]) <= 1e-10


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_variant_on_gpt2(optimizer):
    assert difference("gpt2", OPTIMIZERS[optimizer]) <= 1e-10


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_dropped_state_fails(optimizer):
    assert difference("gpt2", OPTIMIZERS[optimizer], drop_state=True) > 1e-3


def test_short_list_is_in_the_zoo():
    assert set(SHORT) <= set(ZOO)
