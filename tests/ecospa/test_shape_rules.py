"""Shapes by rule and by average: on the target within one width step, and as the rule says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import ecospa
from ecospa import ConfigError, EcoSpaConfig, Shape, ShapeError, WidthRule, shape_rules
from ecospa.accounting import parameters
from ecospa.plan import index_parameters
from ecospa.trace import weightless
from tests.model_zoo import ZOO

CONFIG = EcoSpaConfig(target_size=0.5, target_scope="blocks", width_multiple=2)
RULES = (shape_rules.uniform, shape_rules.linear_taper, shape_rules.feed_forward_first)
KINDS = ("gpt2", "llama-gqa", "bert", "timm-vit")


def dense(kind):
    torch.manual_seed(0)
    return weightless(ZOO[kind].build())


def excess(model, shape, config):
    """Parameters above the target, and those that the smallest next width step would remove."""
    pairs, rule = ecospa.coupled_pairs(model), CONFIG.width_multiple
    left = parameters(model, config.target_scope, shape.plan(model))
    steps = [rule * index_parameters(model, pair) for pair in pairs if shape.widths[pair.name] > rule]
    return left - round(config.target_size * parameters(model, config.target_scope)), min(steps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_lands_on_the_target(rule, kind):
    model = dense(kind)
    for target in (0.8, 0.5):
        config = replace(CONFIG, target_size=target)
        shape = rule(model, config)
        above, step = excess(model, shape, config)
        assert 0 <= above < step
        assert shape.rule == rule.__name__ and shape.settings["target_size"] == target
        assert (shape.probe_steps, shape.probe_flops) == (0, 0)
        assert Shape.from_json(shape.to_json()) == shape


def shares(shape):
    return {name: width / shape.dense_widths[name] for name, width in shape.widths.items()}


def test_the_rules_differ_as_they_say():
    model = dense("gpt2")
    even, taper, early = (shares(rule(model, CONFIG)) for rule in RULES)
    assert max(even.values()) - min(even.values()) <= 2 / 8  # one width step of a head
    for kind in ("attn.vo", "mlp.ffn"):
        first, last = (taper[f"transformer.h.{block}.{kind}"] for block in (0, 1))
        assert last / first == pytest.approx(0.25, abs=0.1)
    assert early["transformer.h.0.mlp.ffn"] == 1 > early["transformer.h.1.mlp.ffn"]
    assert {share for name, share in early.items() if "attn" in name} == {2 / 8}
    widening = shares(shape_rules.linear_taper(model, CONFIG, last=4))
    assert widening["transformer.h.0.mlp.ffn"] < widening["transformer.h.1.mlp.ffn"]


@pytest.mark.parametrize("last", [0, -1.0, float("inf"), True, "half"])
def test_a_taper_that_is_none_is_refused(last):
    with pytest.raises(Exception, match="last"):
        shape_rules.linear_taper(dense("gpt2"), CONFIG, last=last)


def test_floors_and_tied_heads_are_kept():
    model = dense("llama-gqa")
    tied = replace(CONFIG, width_multiple=WidthRule(2, 2, 2, tied=True), min_share=0.3)
    for rule in RULES:
        shape = rule(model, tied)
        assert all(share >= 0.3 for share in shares(shape).values())
        for name, width in shape.widths.items():
            assert not name.endswith("qk") or shape.widths[name.replace("qk", "vo")] == width
    with pytest.raises(ConfigError, match="the smallest reachable value is"):
        shape_rules.uniform(model, replace(CONFIG, target_size=0.01))


def test_the_average_of_one_shape_is_that_shape():
    model = dense("gpt2")
    for rule in RULES:
        shape = rule(model, CONFIG)
        assert shape_rules.average(model, [shape], CONFIG).widths == shape.widths


def test_an_average_lies_between_and_lands():
    model = dense("gpt2")
    parts = [replace(rule(model, CONFIG), seeds=(n,), probe_steps=5, probe_flops=10) for n, rule in enumerate(RULES)]
    shape = shape_rules.average(model, parts, CONFIG)
    above, step = excess(model, shape, CONFIG)
    assert 0 <= above < step
    for name, width in shape.widths.items():
        assert min(part.widths[name] for part in parts) - 2 <= width <= max(part.widths[name] for part in parts) + 2
    assert (shape.seeds, shape.probe_steps, shape.probe_flops) == ((0, 1, 2), 15, 30)
    unknown = replace(parts[0], probe_flops=None)
    assert shape_rules.average(model, [parts[1], unknown], CONFIG).probe_flops is None
    with pytest.raises(ShapeError, match="shapes is empty"):
        shape_rules.average(model, [], CONFIG)
    with pytest.raises(ShapeError, match="no such pair"):
        shape_rules.average(dense("bert"), parts, CONFIG)
