"""Steps that count: those that an optimizer really takes, whatever a loop calls and however often."""

import copy
import gc

import pytest
import torch
from torch import nn

import ecospa
from ecospa.step_counter import StepCounter
from tests.ecospa.loops import CURVE, IDS, backward, make, plain
from tests.model_zoo import ZOO


def test_micro_batches_are_no_steps_and_the_accumulated_gradient_counts_once():
    model, optimizer, sparsity = make()
    seen = []
    for micro in range(32):
        plain(model, optimizer, sparsity, micro)
        seen.append((sparsity.step, sparsity.finished))
    assert [steps for steps, _ in seen] == [(micro + 1) // 4 for micro in range(32)]
    assert not seen[22][1] and seen[31][1]

    once, once_optimizer, reference = make()
    for _ in range(8):
        for micro in range(4):
            backward(once, micro)
        reference.after_backward()
        once_optimizer.step()
        reference.after_step()
        once_optimizer.zero_grad()
    assert reference.history == sparsity.history
    for mine, theirs in zip(model.parameters(), once.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_accelerate_accumulation_counts_its_real_steps():
    from accelerate import Accelerator

    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = ZOO["llama-gqa"].build()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 1e-3))
    sparsity = ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(**CURVE, end_step=3))
    for micro in range(12):
        with accelerator.accumulate(model):
            accelerator.backward(model(input_ids=IDS[:4], labels=IDS[:4]).loss)
            sparsity.after_backward()
            optimizer.step()
            sparsity.after_step()
            optimizer.zero_grad()
        assert sparsity.step == (micro + 1) // 4
    assert sparsity.reached and sparsity.history[-1].step >= 2


def test_steps_that_loss_scaling_skips_do_not_count_nor_poison_the_estimate():
    model, optimizer, sparsity = make()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for number in range(4):
        scaler.scale(model(input_ids=IDS[:4], labels=IDS[:4]).loss).backward()
        if number == 1:
            model.transformer.h[0].mlp.c_fc.weight.grad[0, 0] = torch.inf
        scaler.unscale_(optimizer)
        sparsity.after_backward()
        scaler.step(optimizer)
        scaler.update()
        sparsity.after_step()
        optimizer.zero_grad()
        assert sparsity.step == number + (number < 1)
    assert len(sparsity.history) == 4  # three steps, three events, no SkippedEventWarning


def test_steps_without_a_call_are_counted_and_their_gradients_kept():
    model, optimizer, sparsity = make(interval=5, end_step=10)
    for _ in range(2):
        for _ in range(2):
            backward(model)
            sparsity.after_backward()
            optimizer.step()
            optimizer.zero_grad()
        sparsity.after_step()
    assert sparsity.step == sparsity.estimator.steps == 4


def test_a_checkpoint_between_the_hooks_goes_on_bitwise():
    """After a micro-batch, and between the optimizer's step and after_step()."""
    whole_model, whole_optimizer, whole = make()
    for micro in range(32):
        plain(whole_model, whole_optimizer, whole, micro)
    for stepped in (False, True):
        model, optimizer, sparsity = make()
        for micro in range(15):
            plain(model, optimizer, sparsity, micro)
        if stepped:
            backward(model, 15)
            sparsity.after_backward()
            optimizer.step()
        state = copy.deepcopy(sparsity.state_dict())
        again = copy.deepcopy(model)
        for mine, theirs in zip(again.parameters(), model.parameters(), strict=True):
            mine.grad = theirs.grad.clone()
        optimizer = torch.optim.SGD(again.parameters(), lr=0.01)
        resumed = ecospa.CoupledSparsity(again, optimizer, sparsity.config, resume=state)
        if stepped:
            resumed.after_step()
            optimizer.zero_grad()
        for micro in range(16 if stepped else 15, 32):
            plain(again, optimizer, resumed, micro)
        assert resumed.history == whole.history
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole_model.parameters(), strict=True))


class Nested(torch.optim.SGD):
    """Its step calls that of its base class, so torch calls the hooks twice."""

    def step(self, closure=None):
        return super().step(closure)


class Foreign:
    """An optimizer that knows nothing of hooks."""

    def __init__(self, parameters):
        self.param_groups, self.state = [{"params": list(parameters)}], {}

    def step(self):
        pass


def two(parameters):
    first, *others = parameters
    return [torch.optim.SGD([first], 0.1), torch.optim.AdamW(others)]


def scheduled(parameters):
    optimizer = torch.optim.SGD(parameters, 0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return optimizer


def lookahead(parameters):
    from timm.optim import Lookahead

    return Lookahead(torch.optim.SGD(parameters, 0.1))


def replaced(parameters):
    optimizer = torch.optim.SGD(parameters, 0.1)
    optimizer.step = lambda: None
    return optimizer


@pytest.mark.parametrize("kind", [torch.optim.AdamW, Nested, two, scheduled, lookahead, Foreign, replaced])
def test_every_kind_of_optimizer_steps_once_per_step(kind):
    parameters = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    torch.optim.SGD(parameters, 0.1)  # from now on the base class of Nested calls hooks as well
    optimizer = kind(parameters)
    counter = StepCounter(optimizer)
    for expected in range(1, 4):
        for parameter in parameters:
            parameter.grad = torch.ones(2, 2)
        for one in optimizer if isinstance(optimizer, list) else [optimizer]:
            one.step()
        assert counter.read() == 1 and counter.total == expected
    assert counter.asks_optimizers == (kind not in (Foreign, replaced))
    assert counter.read() == (0 if counter.asks_optimizers else 1)


def test_a_step_that_raises_costs_no_later_one():
    parameter = nn.Parameter(torch.ones(2))
    optimizer, fails = torch.optim.SGD([parameter], 0.1), [True]
    counter = StepCounter(optimizer)

    def closure():
        if fails.pop():
            raise MemoryError
        return 0.0

    with pytest.raises(MemoryError):
        optimizer.step(closure)
    counter.leave_step()
    fails.append(False)
    optimizer.step(closure)
    assert counter.read() == 1


def test_hooks_leave_with_the_sparsity_and_do_not_travel_with_copies():
    model, optimizer, sparsity = make()
    assert len(optimizer._optimizer_step_post_hooks) == 1
    assert not copy.deepcopy(optimizer)._optimizer_step_post_hooks
    sparsity.release()
    assert not optimizer._optimizer_step_post_hooks
    sparsity = ecospa.CoupledSparsity(model, optimizer, sparsity.config)
    del sparsity
    gc.collect()
    assert not optimizer._optimizer_step_post_hooks
