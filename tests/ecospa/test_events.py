"""Events that fail, two of them at once on a model, and cuts by hand in between."""

import pytest
import torch
from torch import nn

import ecospa
from tests.ecospa.loops import CURVE, backward, make, share, step

# --- events that fail -------------------------------------------------------------------------------------------------


def test_a_raising_progress_function_changes_nothing_in_the_schedule():
    reference_model, reference_optimizer, reference = make(interval=2)
    for _ in range(8):
        step(reference_model, reference_optimizer, reference)

    def fails(event):
        raise ZeroDivisionError

    model, optimizer, sparsity = make(interval=2, on_cut=fails)
    raised = 0
    for _ in range(8):
        try:
            step(model, optimizer, sparsity)
        except ZeroDivisionError:
            raised += 1
            optimizer.zero_grad()
    assert raised == 4 and sparsity.history == reference.history and sparsity.finished


@pytest.mark.filterwarnings("error")
def test_a_warning_turned_error_leaves_the_schedule_where_it_is():
    model, optimizer, sparsity = make(interval=2)
    raised = 0
    for number in range(8):
        backward(model)
        if number == 1:
            model.transformer.h[0].mlp.c_fc.weight.grad.fill_(torch.nan)
        sparsity.after_backward()
        if number != 1:
            optimizer.step()
        else:  # nothing a scaler would have let through
            optimizer.zero_grad()
            optimizer.step()
        try:
            sparsity.after_step()
        except ecospa.SkippedEventWarning:
            raised += 1
            assert sparsity.next_event == 4 and sparsity.estimator.steps == 0
        optimizer.zero_grad()
    assert raised == 1 and [event.step for event in sparsity.history] == [0, 4, 6, 8]


def test_surgery_that_fails_costs_one_event_and_nothing_else(monkeypatch):
    model, optimizer, sparsity = make(interval=2)
    step(model, optimizer, sparsity)
    before, wanted = [p.shape for p in model.parameters()], sparsity.sparsifier.state_dict()

    def fails(*arguments, **options):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("ecospa.sparsity.apply_plan", fails)
        with pytest.raises(MemoryError):
            step(model, optimizer, sparsity)
    assert [p.shape for p in model.parameters()] == before and sparsity.sparsifier.state_dict() == wanted
    assert sparsity.next_event == 4 and sparsity.estimator.steps == 2
    for _ in range(6):
        optimizer.zero_grad()
        step(model, optimizer, sparsity)
    assert [event.step for event in sparsity.history] == [0, 4, 6, 8] and sparsity.reached


# --- two at once, cuts by hand ----------------------------------------------------------------------------------------


def test_a_second_one_is_refused_while_the_first_is_at_work():
    model, optimizer, sparsity = make()
    wider = nn.ModuleDict({"student": model})
    for other in (model, wider, torch.compile(model, backend="eager")):
        with pytest.raises(ecospa.ConfigError, match=r"another CoupledSparsity is at work.*close\(\)"):
            ecospa.CoupledSparsity(other, optimizer, sparsity.config)
    assert len(optimizer._optimizer_step_post_hooks) == 1
    ecospa.claim.abandon(model)
    lost = ecospa.CoupledSparsity(model, optimizer, sparsity.config)
    lost.release()
    sparsity.release()
    ecospa.CoupledSparsity(model, optimizer, sparsity.config)  # and forgotten at once
    second = ecospa.CoupledSparsity(model, optimizer, sparsity.config)
    for _ in range(8):
        step(model, optimizer, second)
    assert second.reached
    ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(**CURVE | {"target_size": 0.5}, end_step=8))


@pytest.mark.parametrize("by", ["plan", "heads"])
def test_a_cut_by_hand_is_refused_until_it_is_absorbed(by):
    model, optimizer, sparsity = make(interval=2, kind="llama-gqa")
    step(model, optimizer, sparsity)
    if by == "plan":
        plan = ecospa.plan_shrink(model, 0.9, target_scope="blocks", width_multiple=2)
        ecospa.apply_plan(model, plan, optimizer)
    else:
        ecospa.surgery.keep_heads(model, {"model.layers.0.self_attn": torch.tensor([0])}, optimizer)
    optimizer.zero_grad()
    backward(model)
    for hook in (sparsity.after_backward, sparsity.after_step):
        with pytest.raises(ecospa.PlanError, match="something else than this CoupledSparsity"):
            hook()
    sparsity.absorb_cut()
    for _ in range(7):
        optimizer.zero_grad()
        step(model, optimizer, sparsity)
    assert sparsity.reached and 0.6 <= share(model) < 0.66 and sparsity.history[1].step == 1
