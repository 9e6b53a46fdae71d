"""A short plain training loop of a tiny GPT-2 that shrinks, for the tests of steps, schedules and events."""

import torch

import ecospa
from tests.model_zoo import VOCABULARY, ZOO

IDS = torch.randint(2, VOCABULARY, (16, 8), generator=torch.Generator().manual_seed(1))
CURVE = {"target_size": 0.6, "target_scope": "blocks", "width_multiple": 2, "interval": 1, "pace": "curve"}


def make(optimizer=None, on_cut=None, kind="gpt2", **options):
    torch.manual_seed(0)
    model = ZOO[kind].build().eval()
    optimizer = (optimizer or (lambda model: torch.optim.SGD(model.parameters(), lr=0.01)))(model)
    config = ecospa.EcoSpaConfig(**(CURVE | {"end_step": 8} | options))
    return model, optimizer, ecospa.CoupledSparsity(model, optimizer, config, on_cut=on_cut)


def backward(model, micro=0):
    rows = IDS[4 * (micro % 4) : 4 * (micro % 4) + 4]
    model(input_ids=rows, labels=rows).loss.backward()


def share(model):
    return ecospa.accounting.parameters(model, "blocks") / ecospa.dense.dense_parameters(model, "blocks")


def step(model, optimizer, sparsity):
    backward(model)
    sparsity.after_backward()
    optimizer.step()
    sparsity.after_step()
    optimizer.zero_grad()


def plain(model, optimizer, sparsity, micro):
    """Both hooks after every micro-batch, a step every fourth."""
    backward(model, micro)
    sparsity.after_backward()
    if micro % 4 == 3:
        optimizer.step()
    sparsity.after_step()
    if micro % 4 == 3:
        optimizer.zero_grad()
