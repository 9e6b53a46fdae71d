"""The schedule in real loops: what counts as a step, a second run, a run that is too short, events that fail."""

import copy
import gc
import warnings

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

import ecospa
from ecospa.outlook import outlook
from ecospa.step_counter import StepCounter
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


# --- a target is a share of the dense model ---------------------------------------------------------------------------


def test_a_second_run_begins_at_its_size_and_ends_where_the_first_would():
    model, optimizer, sparsity = make(target_size=0.8)
    for _ in range(8):
        step(model, optimizer, sparsity)
    between = share(model)
    second = ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(**CURVE, end_step=8))
    assert second.schedule.full_size == ecospa.accounting.parameters(model, "blocks")
    sizes = []
    for _ in range(8):
        step(model, optimizer, second)
        sizes.append(share(model))
    assert 0.8 <= between < 0.85 and sizes[0] < between and 0.6 <= sizes[-1] < 0.65 and second.reached
    third = ecospa.CoupledSparsity(model, optimizer, second.config)
    assert third.finished and third.reached and third.next_event is None
    step(model, optimizer, third)
    assert share(model) == sizes[-1]


def test_a_target_that_is_reached_says_so(caplog):
    model, optimizer, sparsity = make()
    for _ in range(8):
        step(model, optimizer, sparsity)
    caplog.clear()
    ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(target_size=0.7, target_scope="blocks"))
    assert "the target is reached already: the model has 0.6" in caplog.text
    plan = ecospa.plan_shrink(model, 0.7, target_scope="blocks", width_multiple=8)
    assert not plan.kept and "nothing to cut: the model has 0.6" in plan.reason


def test_relative_to_current_halves_again():
    model, _, _ = make()
    for expected in (0.8, 0.64):
        plan = ecospa.plan_shrink(model, 0.8, target_scope="blocks", width_multiple=1, relative_to="current")
        ecospa.apply_plan(model, plan)
        assert share(model) == pytest.approx(expected, abs=0.01)


def test_states_of_earlier_releases_are_read():
    model, optimizer, sparsity = make()
    for _ in range(3):
        step(model, optimizer, sparsity)
    state = sparsity.state_dict()
    full = state["sparsifier"].pop("start_size")
    again = copy.deepcopy(model)
    resumed = ecospa.CoupledSparsity(again, torch.optim.SGD(again.parameters(), lr=0.01), sparsity.config, resume=state)
    assert resumed.schedule.full_size == full == sparsity.schedule.full_size


@pytest.mark.parametrize(("start", "end", "interval"), [(0, 30, None), (4, 24, 3), (7, 100, None), (2, 9, 50)])
def test_the_next_event_is_found_without_walking_there(start, end, interval):
    config = ecospa.EcoSpaConfig(pace="curve", start_step=start, end_step=end, interval=interval)
    schedule = ecospa.schedule.Schedule(config, 100, 50)
    for step in range(end + 3):
        following = step + 1
        while not schedule.due(following) and following < end:
            following += 1
        assert schedule.next_due(step) == following
    far = ecospa.EcoSpaConfig(pace="curve", start_step=2**52, end_step=2**53)
    assert ecospa.schedule.Schedule(far, 100, 50).next_due(0) > 2**52


# --- a run that is too short ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "steps", "told"),
    [
        ({"end_step": 100}, 30, "end_step of at most 30"),
        ({"end_step": 100, "start_step": 50}, 30, "start_step below 30"),
        ({"pace": "paper", "interval": 100, "end_step": None}, 30, "end_step=30"),
        ({"pace": "paper", "interval": 10, "end_step": None}, 100, "interval="),
        ({"pace": "paper", "interval": None, "end_step": None}, 30, "about 0 events"),
    ],
)
def test_a_schedule_beyond_the_run_is_told_at_the_start_with_a_value_that_fits(fields, steps, told):
    _, _, sparsity = make(**fields)
    assert told in (outlook(sparsity, steps) or "")


@pytest.mark.parametrize(
    "fields",
    [{"end_step": 30}, {"pace": "paper", "interval": 1, "end_step": None}, {"pace": "paper", "interval": None}],
)
def test_a_schedule_that_fits_is_not_doubted(fields):
    _, _, sparsity = make(**fields)
    assert outlook(sparsity, 90) is None


@pytest.mark.parametrize(
    ("fields", "steps", "why"),
    [
        ({"end_step": 8, "start_step": 5}, 2, "before start_step, which is 5"),
        ({"end_step": 8}, 2, "before end_step, which is 8"),
        (
            {"pace": "paper", "interval": 4, "end_step": None},
            5,
            "events have cut, the next would come at step 8",
        ),
        ({}, 0, "no optimizer step was seen"),
    ],
)
def test_the_end_says_what_was_asked_what_came_of_it_and_why(fields, steps, why):
    model, optimizer, sparsity = make(**fields)
    for _ in range(steps):
        step(model, optimizer, sparsity)
    with pytest.warns(ecospa.TargetNotReachedWarning, match=why) as caught:
        sparsity.close()
    assert f"the model has {share(model):.3f} of the block parameters" in str(caught[0].message)
    assert "0.6 was asked for" in str(caught[0].message)
    with pytest.raises(RuntimeError, match="was closed"):
        sparsity.after_backward()


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(IDS)

    def __getitem__(self, index):
        return {"input_ids": IDS[index], "labels": IDS[index]}


def trainer(folder, model=None, steps=8, **fields):
    arguments = TrainingArguments(
        str(folder), max_steps=steps, per_device_train_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=True,
        save_strategy="no", **fields.pop("arguments", {}),
    )  # fmt: skip
    torch.manual_seed(0)
    config = ecospa.EcoSpaConfig(**(CURVE | {"end_step": 6} | fields))
    return ecospa.EcoSpaTrainer(model or ZOO["gpt2"].build(), arguments, train_dataset=Rows(), ecospa_config=config)


def test_trainer_tells_at_the_start_and_at_the_end(tmp_path):
    run = trainer(tmp_path, end_step=100, start_step=4, interval=2)
    with pytest.warns(ecospa.TargetNotReachedWarning) as caught:
        run.train()
    first, last = (str(warning.message) for warning in caught if warning.category is ecospa.TargetNotReachedWarning)
    assert "the run ends after 8 optimizer steps" in first and "end_step of at most 8" in first
    assert "before end_step, which is 100" in last and run.ecospa.sparsity.step == run.state.global_step == 8


def test_trainer_counts_global_steps_and_names_the_right_next_event(tmp_path, caplog):
    import logging

    run = trainer(tmp_path, interval=2, arguments={"gradient_accumulation_steps": 2})
    with caplog.at_level(logging.INFO, "ecospa"), warnings.catch_warnings():
        warnings.simplefilter("error", ecospa.TargetNotReachedWarning)
        run.train()
    assert run.ecospa.sparsity.step == run.state.global_step == 8
    lines = [record.getMessage() for record in caplog.records if " in blocks, " in record.getMessage()]
    assert [line.rpartition(", ")[2] for line in lines] == [
        "next event at step 4",
        "next event at step 6",
        "the last event",
    ]
    assert "the target is reached" in caplog.text


def test_training_twice_and_restarting_with_a_smaller_batch_end_at_the_target(tmp_path):
    run = trainer(tmp_path)
    run.train()
    once = share(run.model)
    run.train()
    assert share(run.model) == once and 0.6 <= once < 0.65
    assert not run.optimizer or not [h for h in getattr(run.optimizer, "_optimizer_step_post_hooks", ())]

    run = trainer(tmp_path, arguments={"auto_find_batch_size": True})
    step, calls = run.training_step, []

    def once_out_of_memory(*arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("CUDA out of memory.")
        return step(*arguments, **options)

    run.training_step = once_out_of_memory
    run.train()
    assert len(calls) > 8 and 0.6 <= share(run.model) < 0.65
    assert run.ecospa.sparsity.sparsifier.full_size == ecospa.dense.dense_parameters(run.model, "blocks")


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
