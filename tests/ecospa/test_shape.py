"""A shape as an object: checked against its model, written and read strictly, and no other shape than it says."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import jaxtyping
import pytest
import torch

import ecospa
from ecospa import Shape, ShapeError
from ecospa.trace import weightless
from tests.model_zoo import ZOO

QK, FFN = "transformer.h.0.attn.qk", "transformer.h.1.mlp.ffn"
REFUSED = (ShapeError, jaxtyping.TypeCheckError)


@functools.cache
def gpt2():
    torch.manual_seed(0)
    return ZOO["gpt2"].build()


@functools.cache
def shape():
    origin = {"rule": "probe", "settings": {"top_k": 0.3}, "seeds": (3, 4), "probe_steps": 20, "probe_flops": 7}
    return Shape.build(gpt2(), {QK: 4, FFN: 40}, **origin)


def test_pairs_that_are_not_named_keep_their_width_and_all_is_counted():
    assert shape().widths == {**shape().dense_widths, QK: 4, FFN: 40}
    plan = shape().plan(gpt2())
    assert plan.widths_after() == shape().widths and plan.parameters_after == shape().parameters
    assert Shape.build(gpt2(), {}).parameters == sum(p.numel() for p in gpt2().parameters())
    assert Shape.build(weightless(gpt2()), shape().widths) == replace(
        shape(), rule="given", settings={}, seeds=(), probe_steps=0, probe_flops=0
    )


@pytest.mark.parametrize("change", [{}, {"probe_flops": None}, {"seeds": ()}, {"settings": {}}])
def test_json_brings_the_same_shape_back(change):
    known = replace(shape(), **change)
    again = Shape.from_json(known.to_json())
    assert again == known and again.to_json() == known.to_json()


def test_the_mappings_of_the_caller_may_change_later():
    widths = {QK: 4}
    made = Shape.build(gpt2(), widths)
    widths[QK] = 8
    assert made.widths[QK] == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "version is 2"),
        ({"widths": {QK: 4}}, "has no entry in both"),
        ({"widths": []}, "widths is"),
        ({"dense_widths": {QK: True}}, "dense_widths"),
        ({"parameters": -1}, "parameters is -1"),
        ({"seeds": 3}, "seeds is 3"),
        ({"seeds": [0.5]}, "seeds is 0.5"),
        ({"probe_steps": 1.0}, "probe_steps is 1.0"),
        ({"probe_flops": False}, "probe_flops is False"),
        ({"rule": 1}, "rule is 1"),
        ({"extra": 1}, "unknown field 'extra'"),
    ],
)
def test_text_that_is_no_shape_is_refused(change, told):
    content = {**json.loads(shape().to_json()), **change}
    with pytest.raises(REFUSED) as raised:
        Shape.from_json(json.dumps(content))
    assert isinstance(raised.value, jaxtyping.TypeCheckError) or told in str(raised.value)


def test_text_that_lacks_a_field_or_is_no_json_is_refused():
    content = json.loads(shape().to_json())
    del content["rule"]
    for text in (json.dumps(content), "{", "[]", shape().to_json().replace('"rule"', '"rule": 1, "rule"')):
        with pytest.raises(ShapeError, match=r"this is not a shape .* give the text that Shape\.to_json wrote"):
            Shape.from_json(text)


def test_settings_that_json_cannot_hold_are_refused():
    for value in (object(), float("nan")):
        with pytest.raises(ShapeError, match="no JSON"):
            replace(shape(), settings={"x": value}).to_json()


@pytest.mark.parametrize(
    ("widths", "told"),
    [
        ({"nobody": 4}, "nobody: the model has no such pair; it has transformer.h.0.attn.qk"),
        ({QK: 9}, r"\] is 9; it must be a multiple of 1 in \[1, 8\]"),
        ({QK: 0}, "is 0; it must be a whole number from 1 on"),
        ({QK: 4.0}, "is 4.0; it must be a whole number"),
    ],
)
def test_widths_that_the_model_cannot_have_are_refused(widths, told):
    build = Shape.build.__func__
    build = getattr(build, "__wrapped__", build)  # without the check of types, which stops some of them even before
    with pytest.raises(ShapeError, match=told):
        build(Shape, gpt2(), widths)


def test_rotary_partners_stay_together():
    with pytest.raises(ShapeError, match="multiple of 2"):
        Shape.build(ZOO["llama-gqa"].build(), {"model.layers.0.self_attn.qk": 7})


def test_a_shape_of_another_model_is_refused():
    with pytest.raises(ShapeError, match="the shape was made for no such pair, this model has width 40"):
        shape().plan(ZOO["llama-gqa"].build())
    with pytest.raises(ShapeError, match=r"its pairs are alike and the rest differs.*Shape\.build"):
        shape().plan(ZOO["gpt2-untied"].build())
    wider = dict.fromkeys(shape().dense_widths, 128)
    with pytest.raises(ShapeError, match="was made for width 128, this model has width 8"):
        replace(shape(), dense_widths=wider).plan(gpt2())


def test_a_model_that_was_cut_has_no_shape_to_find():
    model = ZOO["gpt2"].build()
    ecospa.apply_plan(model, shape().plan(model))
    for attempt in (lambda: Shape.build(model, {}), lambda: shape().plan(model)):
        with pytest.raises(ShapeError, match="the model has been cut"):
            attempt()
