"""Coupled sparsity in a plain loop: paces, landing, floors, resume, refusals."""

import copy
import itertools
import logging

import pytest
import torch

import ecospa
from tests.model_zoo import ZOO, build, inputs, logits


def make(kind="gpt2", **options):
    torch.manual_seed(0)
    model = ZOO[kind].build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    config = ecospa.EcoSpaConfig(**({"target_scope": "blocks", "width_multiple": 2} | options))
    return model, optimizer, ecospa.CoupledSparsity(model, optimizer, config)


def run(model, optimizer, sparsity, kind, steps):
    for step in steps:
        model.eval()  # no dropout: the runs that are compared must see the same numbers
        batch = inputs(kind, seed=step)
        if ZOO[kind].image:
            batch = {name: value.float() for name, value in batch.items()}
        logits(model, batch).square().mean().backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()


def largest_step(model, multiple):
    from ecospa.plan import index_parameters

    return max(multiple * index_parameters(model, pair) for pair in ecospa.coupled_pairs(model))


KINDS = ("gpt2", "llama-gqa", "qwen3", "bert", "vit", "timm-deit-distilled")
WAYS = tuple(itertools.product(("paper", "curve"), ("layer", "head")))


def each_kind_one_way():
    """Every kind with every way; the ordinary run has every kind once, and every way."""
    cases = []
    for (number, kind), (turn, (pace, granularity)) in itertools.product(enumerate(KINDS), enumerate(WAYS)):
        marks = () if number % len(WAYS) == turn else pytest.mark.slow
        cases.append(pytest.param(kind, pace, granularity, marks=marks))
    return cases


@pytest.mark.parametrize(("kind", "pace", "granularity"), each_kind_one_way())
def test_lands_on_the_target_within_one_width_step(kind, pace, granularity):
    end = {"end_step": 30} if pace == "curve" else {"interval": 1}
    model, optimizer, sparsity = make(kind, pace=pace, target_size=0.55, granularity=granularity, **end)
    step = largest_step(model, 2)
    full = ecospa.accounting.parameters(model, "blocks")
    run(model, optimizer, sparsity, kind, range(30 if pace == "curve" else 90))
    left, target = ecospa.accounting.parameters(model, "blocks"), sparsity.sparsifier.target_size
    assert sparsity.finished and sparsity.next_event is None
    assert target == round(0.55 * full)
    assert target <= left < target + step
    sizes = [event.block_parameters for event in sparsity.history]
    assert sizes[0] == full and sizes[-1] == left and sizes == sorted(sizes, reverse=True) and len(sizes) > 3
    assert sparsity.history[-1].parameters == sum(p.numel() for p in model.parameters())
    assert all(width % 2 == 0 for width in sparsity.history[-1].widths.values())


@pytest.mark.parametrize("curve", ["linear", "cubic"])
def test_size_follows_the_curve(curve):
    model, optimizer, sparsity = make(pace="curve", curve=curve, target_size=0.5, start_step=4, end_step=24, interval=2)
    step, full = largest_step(model, 2), sparsity.sparsifier.full_size
    run(model, optimizer, sparsity, "gpt2", range(24))
    for event in sparsity.history[1:]:
        progress = (event.step - 4) / 20
        left = (1 - progress) if curve == "linear" else (1 - progress) ** 3
        wanted = full * (0.5 + 0.5 * left)
        assert wanted - 1 <= event.block_parameters < wanted + step
    assert sparsity.finished and sparsity.history[1].step > 4 and sparsity.history[-1].step >= 22


def test_rounding_to_the_head_width_does_not_stall_the_own_pace():
    # theta wants 7.2 of 8; rounded to multiples of 4 that is 8 again and again without the remembered fraction
    model, optimizer, sparsity = make(width_multiple=4, interval=1, top_k=1.0, target_size=0.6)
    run(model, optimizer, sparsity, "gpt2", range(40))
    assert sparsity.finished
    assert min(sparsity.history[-1].widths.values()) == 4


def test_end_step_alone_sets_the_pace():
    model, optimizer, sparsity = make(pace="paper", end_step=40, target_size=0.5)
    run(model, optimizer, sparsity, "gpt2", range(40))
    events = [event.step for event in sparsity.history[1:]]
    assert sparsity.finished and 15 <= events[-1] <= 40 and len(events) > 5


def test_floor_is_said_once_and_training_goes_on(caplog):
    model, optimizer, sparsity = make(width_multiple=4, interval=1, top_k=1.0, target_size=0.4935)
    smallest = sparsity.sparsifier
    smallest.target_size = 0  # as when a user has cut deeper by hand than the floors allow
    with caplog.at_level(logging.WARNING, "ecospa"):
        run(model, optimizer, sparsity, "gpt2", range(60))
    told = [record for record in caplog.records if "every pair is at its floor" in record.message]
    assert len(told) == 1 and sparsity.step == 60
    assert set(sparsity.history[-1].widths.values()) == {4}


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
@pytest.mark.parametrize("stop", [3, 10, 19])
def test_resume_is_bitwise(kind, stop, tmp_path):
    """Interrupted before, between and after events, through a checkpoint on disk."""
    options = {"pace": "curve", "start_step": 4, "end_step": 16, "interval": 3, "target_size": 0.6}
    whole_model, whole_optimizer, whole = make(kind, **options)
    run(whole_model, whole_optimizer, whole, kind, range(22))
    model, optimizer, sparsity = make(kind, **options)
    run(model, optimizer, sparsity, kind, range(stop))
    ecospa.save_pretrained(model, tmp_path)
    state, saved_optimizer = copy.deepcopy(sparsity.state_dict()), copy.deepcopy(optimizer.state_dict())
    again = ecospa.from_pretrained(tmp_path)
    optimizer = torch.optim.AdamW(again.parameters(), lr=1e-3)
    optimizer.load_state_dict(saved_optimizer)
    resumed = ecospa.CoupledSparsity(again, optimizer, sparsity.config, resume=state)
    run(again, optimizer, resumed, kind, range(stop, 22))
    assert resumed.history == whole.history
    for (name, mine), theirs in zip(again.state_dict().items(), whole_model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_resume_with_a_dense_model_is_refused():
    model, optimizer, sparsity = make(interval=1, top_k=1.0, target_size=0.6)
    run(model, optimizer, sparsity, "gpt2", range(3))
    dense, dense_optimizer, _ = make()
    with pytest.raises(ValueError, match="widths are not those of the saved state"):
        ecospa.CoupledSparsity(dense, dense_optimizer, sparsity.config, resume=sparsity.state_dict())


def test_averages_and_schedulers_go_on():
    torch.manual_seed(0)
    model = ZOO["gpt2"].build()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=10)
    scaler = torch.amp.GradScaler("cpu")
    config = ecospa.EcoSpaConfig(target_size=0.6, target_scope="blocks", interval=1, top_k=1.0, width_multiple=2)
    sparsity = ecospa.CoupledSparsity(model, optimizer, config, followers=[average])
    for step in range(8):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**inputs("gpt2", step)).logits.float().square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        sparsity.after_backward()
        scaler.step(optimizer)
        scaler.update()
        sparsity.after_step()
        optimizer.zero_grad()
        scheduler.step()
        average.update_parameters(model)
    assert len(sparsity.history) > 3
    assert [p.shape for p in average.module.parameters()] == [p.shape for p in model.parameters()]
    assert all(state["exp_avg"].shape == p.shape for p, state in optimizer.state.items())
    assert scheduler.get_last_lr()[0] > 8e-4


def test_ctrl_c_in_an_event_leaves_a_usable_model(monkeypatch):
    """Interrupted while planning, nothing has been cut; the next step plans again."""
    model, optimizer, sparsity = make(interval=1, top_k=1.0, target_size=0.6)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sparsity.sparsifier, "plan", interrupt)
        logits(model, inputs("gpt2")).square().mean().backward()
        sparsity.after_backward()
        optimizer.step()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(KeyboardInterrupt):
            sparsity.after_step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    run(model, optimizer, sparsity, "gpt2", range(5))
    assert len(sparsity.history) > 1


def test_one_shot_plans_hit_their_size():
    for kind, scope in (("gpt2", "blocks"), ("llama-gqa", "parameters"), ("timm-vit", "blocks")):
        model = build(kind)
        before = ecospa.accounting.parameters(model, scope)
        plan = ecospa.plan_shrink(model, 0.7, target_scope=scope, width_multiple=2)
        assert 0.7 * before - 1 <= ecospa.accounting.parameters(model, scope, plan)
        assert ecospa.accounting.parameters(model, scope, plan) < 0.7 * before + largest_step(model, 2)
        forward = ecospa.accounting.forward_flops(model, 2, 9, plan)
        memory = ecospa.accounting.memory_bytes(model, plan)
        ecospa.apply_plan(model, plan)
        assert ecospa.accounting.forward_flops(model, 2, 9) == forward
        assert ecospa.accounting.memory_bytes(model) == memory
        assert memory["total"] == 4 * memory["weights"]
        assert memory["weights"] == 8 * sum(p.numel() for p in model.parameters())


def test_flops_against_a_count_by_hand():
    model = build("gpt2")
    tokens, width, blocks = 2 * 9, 32, 2
    per_token = blocks * (4 * width * width + 8 * width * width) + 61 * width
    scores = blocks * 2 * width * 9
    assert ecospa.accounting.forward_flops(model, 2, 9) == 2 * tokens * (per_token + scores)
    assert ecospa.accounting.training_flops(model, 2, 9) == 6 * tokens * (per_token + scores)
    with pytest.raises(ValueError, match="optimizer is 'lion'"):
        ecospa.accounting.memory_bytes(model, optimizer="lion")
