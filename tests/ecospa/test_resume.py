"""Resuming with another configuration: every difference takes effect, or is an error that names it."""

import copy
import dataclasses
import json
import logging

import pytest
import torch

import ecospa
from ecospa.resume import CHANGEABLE, config_changes
from tests.model_zoo import ZOO, inputs, logits

BASE = {
    "target_size": 0.45, "target_scope": "blocks", "width_multiple": 2, "pace": "curve", "start_step": 2,
    "end_step": 12, "interval": 2,
}  # fmt: skip
OTHER = {
    "top_k": 0.5, "importance_threshold": 0.8, "target_size": 0.8, "target_scope": "parameters", "start_step": 1,
    "width_multiple": 4, "min_width": 2, "granularity": "head", "estimator": "adam", "importance_scale": "kind",
    "select_within": "kind", "min_share": 0.1, "ranking": "units",
}  # fmt: skip
CHANGED = {"interval": 3, "end_step": 16, "pace": "paper", "curve": "linear"}
AT = 6


def fresh():
    torch.manual_seed(0)
    model = ZOO["gpt2"].build().eval()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def go(model, optimizer, sparsity, steps):
    for step in steps:
        logits(model, inputs("gpt2", seed=step)).square().mean().backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()


def interrupted(at=AT, **options):
    """Model, optimizer and JSON state of a run that was interrupted."""
    model, optimizer = fresh()
    sparsity = ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(**(BASE | options)))
    go(model, optimizer, sparsity, range(at))
    return model, optimizer, json.loads(json.dumps(sparsity.state_dict()))


def resumed(state, model, optimizer, **options):
    return ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(**(BASE | options)), resume=state)


def test_every_field_is_decided_about():
    fields = {field.name for field in dataclasses.fields(ecospa.EcoSpaConfig)}
    assert set(CHANGEABLE) == set(CHANGED) and set(CHANGEABLE) | set(OTHER) <= fields
    # a field that is added to the configuration is an error until somebody has thought about it
    assert not set(CHANGEABLE) & set(OTHER)


@pytest.mark.parametrize("name", OTHER)
def test_other_fields_are_an_error_that_names_both_values(name):
    model, optimizer, state = interrupted()
    before = copy.deepcopy(model.state_dict())
    saved = getattr(ecospa.EcoSpaConfig(**BASE), name)
    with pytest.raises(ecospa.ConfigError) as caught:
        resumed(state, model, optimizer, **{name: OTHER[name]})
    message = str(caught.value)
    assert f"{name} is {OTHER[name]!r}" in message and f"{name}={saved!r}" in message and "from_pretrained" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_running_object_refuses_a_state_of_another_configuration():
    model, optimizer, state = interrupted()
    other = ecospa.CoupledSparsity(model, optimizer, ecospa.EcoSpaConfig(**(BASE | {"target_size": 0.3})))
    with pytest.raises(ecospa.ConfigError, match=r"target_size is 0\.3"):
        other.load_state_dict(state)
    assert other.step == 0


def test_the_same_configuration_goes_on_bitwise():
    whole = interrupted(14)[0]
    model, optimizer, state = interrupted()
    go(model, optimizer, resumed(state, model, optimizer), range(AT, 14))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("name", CHANGED)
def test_when_to_cut_may_change_and_takes_effect(name, caplog):
    model, optimizer, state = interrupted()
    with caplog.at_level(logging.WARNING, logger="ecospa.resume"):
        sparsity = resumed(state, model, optimizer, **{name: CHANGED[name]})
    assert f"{name} {BASE.get(name, 'cubic')!r} -> {CHANGED[name]!r}" in caplog.text
    assert json.loads(json.dumps(sparsity.state_dict()))["config"][name] == CHANGED[name]
    steps = [event.step for event in sparsity.history]
    go(model, optimizer, sparsity, range(AT, 18))
    after = [event.step for event in sparsity.history if event.step > AT]
    if name == "interval":  # counted from start_step
        assert state["next"] == 8 and after == [8, 11]
    elif name == "end_step":
        assert after[-1] == 16 and sparsity.finished
    else:
        model, optimizer, state = interrupted()
        same = resumed(state, model, optimizer)
        go(model, optimizer, same, range(AT, 18))
        assert same.history != sparsity.history and same.history[: len(steps)] == sparsity.history[: len(steps)]
    if name in ("interval", "end_step", "curve"):
        assert abs(sparsity.history[-1].block_parameters / sparsity.sparsifier.full_size - 0.45) < 0.02


def test_no_gradient_has_been_gathered_before_either_start():
    model, optimizer, state = interrupted(at=1)
    assert resumed(state, model, optimizer, start_step=3).next_event == 5
    model, optimizer, state = interrupted(at=3)
    with pytest.raises(ecospa.ConfigError, match="start_step is 3"):
        resumed(state, model, optimizer, start_step=3)


def test_an_end_that_has_passed_is_refused_unless_the_target_is_reached():
    model, optimizer, state = interrupted()
    with pytest.raises(ecospa.ConfigError, match=r"end_step is 6 \(saved: 12\)"):
        resumed(state, model, optimizer, end_step=AT)
    model, optimizer, state = interrupted(at=13)
    assert state["finished"] and resumed(state, model, optimizer, end_step=AT).finished


def test_states_of_earlier_releases_hold_no_configuration():
    model, optimizer, state = interrupted()
    del state["config"]
    assert config_changes(state, ecospa.EcoSpaConfig(**(BASE | {"target_size": 0.8}))) == {}
    assert resumed(state, model, optimizer).step == AT


def test_a_configuration_that_lacks_a_field_has_its_default():
    model, optimizer, state = interrupted()
    del state["config"]["granularity"]
    assert resumed(state, model, optimizer).step == AT
    with pytest.raises(ecospa.ConfigError, match="granularity"):
        resumed(state, model, optimizer, granularity="head")


def test_a_field_of_a_later_release_is_named():
    model, optimizer, state = interrupted()
    state["config"]["moon_phase"] = 3
    with pytest.raises(ecospa.ConfigError, match="moon_phase=3"):
        resumed(state, model, optimizer)


def test_width_rules_survive_json():
    rule = ecospa.WidthRule(qk=2, vo=2, ffn=4) if hasattr(ecospa, "WidthRule") else {"qk": 2, "vo": 2, "ffn": 4}
    model, optimizer, state = interrupted(width_multiple=rule)
    assert resumed(state, model, optimizer, width_multiple=rule).step == AT
