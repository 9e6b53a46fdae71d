"""Events of a run: steps, sizes before and after, and what is said where its steps do not suffice."""

import copy
import warnings

import pytest
import torch
from transformers import TrainingArguments

import ecospa
from ecospa.outlook import outlook
from tests.ecospa.loops import CURVE, IDS, make, share, step
from tests.model_zoo import ZOO

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
    for now in range(end + 3):
        following = now + 1
        while not schedule.due(following) and following < end:
            following += 1
        assert schedule.next_due(now) == following
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
    assert not run.optimizer or not list(getattr(run.optimizer, "_optimizer_step_post_hooks", ()))

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
