"""A plan is believed only after it was checked: whatever its text or its parts hold, it is exact or refused."""

from __future__ import annotations

import copy
import functools
import json
import random
from contextlib import suppress

import jaxtyping
import pytest
import torch

import ecospa
from ecospa import PlanError, SparsityPlan, apply_plan
from tests.ecospa.model_state import differences, state_of
from tests.model_zoo import ZOO, build, random_plan

COUNT, LARGE = 100, 1500
KINDS = ("gpt2", "llama-gqa", "bert", "timm-vit")
NO_NUMBER = (True, False, None, 1.0, 0.5, -1, 2**63, 2**70, 10**400, "1", "\ud800", [], [1], [[1]], {}, {"a": 1})


@functools.cache
def original(kind):
    return build(kind)


def entry(rng, plan):
    return rng.choice(sorted(plan["kept"]))


def place(rng, plan):
    rows = plan["kept"][entry(rng, plan)]
    row = rng.choice(rows)
    return row, rng.randrange(len(row))


def edit_rows(rng, plan):
    """One entry as a whole."""
    name = entry(rng, plan)
    rows, width = plan["kept"][name], plan["widths"][name]
    count = len(rows[0])
    plan["kept"][name] = rng.choice(
        [
            [], [[]], [[] for _ in rows], rows[0], rows[1:], [*rows, rows[0]], [row[::-1] for row in rows],
            [row[:-1] for row in rows], [rows[0][:-1], *rows[1:]], rows[::-1], [rows], None, "rows", 3, {},
            [list(range(width)) for _ in rows], [list(range(width - count, width)) for _ in rows],
            [sorted(rng.sample(range(width), count)) for _ in rows], [row + row for row in rows],
            [sorted(rng.sample(range(width // 2), count // 2)) for _ in rows], [tuple(row) for row in rows],
        ]
    )  # fmt: skip


def edit_position(rng, plan):
    """One number of one entry."""
    row, at = place(rng, plan)
    row[at] = rng.choice(
        [row[at - 1], row[at] + 1, row[at] - 1, -row[at] - 1, row[at] + 1000, float(row[at]), *NO_NUMBER]
    )


def edit_couples(rng, plan):
    """Other positions that keep the partners of rotary units together, if the entry has any."""
    name = entry(rng, plan)
    rows, width = plan["kept"][name], plan["widths"][name]
    units = rng.sample(range(width // 2), len(rows[0]) // 2)
    if rng.random() < 0.7:
        units = sorted(units)
    plan["kept"][name] = [units + [unit + width // 2 for unit in units] for _ in rows]


def edit_names(rng, plan):
    name = entry(rng, plan)
    rows = plan["kept"].pop(name)
    new = rng.choice([name + "x", "", "\ud800", name.upper(), "transformer.h.0.attn.vo", None])
    if new is not None:
        plan["kept"][new] = rows


def edit_widths(rng, plan):
    name = rng.choice(sorted(plan["widths"]))
    width = plan["widths"][name]
    choice = rng.randrange(4)
    if choice == 0:
        del plan["widths"][name]
    elif choice == 1:
        plan["widths"][name + "x"] = width
    else:
        plan["widths"][name] = rng.choice([width + 1, width - 1, float(width), 0, *NO_NUMBER])


def edit_counts(rng, plan):
    fields = ["parameters_before", "parameters_after"]
    for field in fields if rng.random() < 0.3 else [rng.choice(fields)]:
        plan[field] = rng.choice([plan[field] + 1, plan[field] - 1, float(plan[field]), 0, *NO_NUMBER])


def edit_fields(rng, plan):
    field = rng.choice(["version", "reason", "kept", "widths"])
    valid = {"version": [1, 2, "1", 1.0], "reason": ["", "why", "\ud800", "x" * 5000], "kept": [{}], "widths": [{}]}
    choice = rng.randrange(4)
    if choice == 0:
        del plan[rng.choice(sorted(plan))]
    elif choice == 1:
        plan["more"] = rng.choice(NO_NUMBER)
    else:
        plan[field] = rng.choice([*valid[field], *NO_NUMBER])


def edit_text(rng, text):
    """The text itself: what is no JSON, and what Python's reader forgives."""
    at = rng.randrange(len(text))
    digits = [number for number, letter in enumerate(text) if letter.isdigit()]
    digit = rng.choice(digits)
    return rng.choice(
        [
            text[:at], text[at:], text[:at] + rng.choice('[]{},:"0x ') + text[at + 1 :], text + "]", "\ufeff" + text,
            text[:digit] + rng.choice(["NaN", "Infinity", "-Infinity", "1e3", "9" * 5000, "[" * 9]) + text[digit + 1 :],
            "[" * 100_000, '{"a":' * 100_000, "", "null", "[]", text.replace('"version"', '"version": 1, "version"'),
            text.replace('"kept": {', '"kept": {"a": [[0]], "a": [[0]], ', 1), text + text, text[:at] + "\ud800",
            text.replace('"kept": {', '"kept": {}, "kept": {', 1), text.encode(), text.encode("utf-16"), 3,
            None, ["plan"],
            text.replace("[[", "[" * 60_000, 1), text[:at] + "\x00" + text[at:],
        ]
    )  # fmt: skip


EDITS = (
    edit_rows,
    edit_rows,
    edit_position,
    edit_position,
    edit_couples,
    edit_names,
    edit_widths,
    edit_counts,
    edit_fields,
)


def edited(number):
    """A plan's text with one or two faults, or none that matters."""
    rng = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    text = random_plan(original(kind), number % 7 + 1).to_json()
    if rng.random() < 0.2:
        return kind, edit_text(rng, text)
    plan = json.loads(text)
    for _ in range(rng.choice([1, 1, 2])):
        # the first edit may leave nothing to edit
        with suppress(KeyError, TypeError, IndexError, ValueError, AttributeError):
            rng.choice(EDITS)(rng, plan)
    return kind, json.dumps(plan)


def judge(numbers):
    """Count how many edited plans were accepted; each of them is exact, each other one changed nothing."""
    accepted, trials = 0, {kind: copy.deepcopy(original(kind)) for kind in KINDS}
    before = {kind: state_of(original(kind)) for kind in KINDS}
    for number in numbers:
        kind, text = edited(number)
        try:
            plan = SparsityPlan.from_json(text)
            apply_plan(trials[kind], plan)
        except PlanError as error:
            str(error).encode()
            assert differences(before[kind], state_of(trials[kind])) == [], (number, text)
            continue
        accepted += 1
        wanted = copy.deepcopy(original(kind))
        kept = {name: torch.tensor(rows) for name, rows in json.loads(text)["kept"].items()}
        built = SparsityPlan.build(wanted, kept)
        apply_plan(wanted, built)
        assert differences(state_of(wanted), state_of(trials[kind])) == [], (number, text)
        assert (plan.parameters_before, plan.parameters_after) == (built.parameters_before, built.parameters_after)
        assert sum(p.numel() for p in trials[kind].parameters()) == plan.parameters_after
        trials[kind] = copy.deepcopy(original(kind))
    return accepted


def test_edited_plans_are_exact_or_refused():
    accepted = judge(range(COUNT))
    assert 3 <= accepted <= COUNT / 2, "plans of both kinds are tried"


@pytest.mark.fuzz
def test_many_edited_plans_are_exact_or_refused():
    accepted = judge(range(COUNT, COUNT + LARGE))
    print(f"{LARGE} plans: {accepted} accepted and exact, {LARGE - accepted} refused, nothing changed")


PAIR = "transformer.h.0.attn.qk"


def by_hand(**fields):
    """A plan with other fields, put in by force: with shapes checked, as here, the constructor would stop some."""
    plan = SparsityPlan.build(original("gpt2"), {PAIR: torch.arange(4).repeat(4, 1)})
    for name, value in fields.items():
        object.__setattr__(plan, name, value)
    return plan


HANDMADE = {
    "floats": {"kept": {PAIR: torch.zeros(4, 4)}},
    "int32": {"kept": {PAIR: torch.arange(4).repeat(4, 1).int()}},
    "booleans": {"kept": {PAIR: torch.ones(4, 4, dtype=torch.bool)}},
    "one dimension": {"kept": {PAIR: torch.arange(4)}},
    "empty": {"kept": {PAIR: torch.zeros(4, 0, dtype=torch.int64)}},
    "without values": {"kept": {PAIR: torch.zeros(4, 4, dtype=torch.int64, device="meta")}},
    "sparse": {"kept": {PAIR: torch.arange(4).repeat(4, 1).to_sparse()}},
    "a list": {"kept": {PAIR: [[0, 1]] * 4}},
    "too many": {"kept": {PAIR: torch.arange(9).repeat(4, 1)}},
    "no name": {"kept": {3: torch.arange(4).repeat(4, 1)}},
    "no mapping": {"kept": [1]},
    "nothing": {"kept": None},
    "no width": {"widths": {}},
    "half a width": {"widths": {PAIR: 8.0}},
    "no parameters": {"parameters_before": None},
    "more than before": {"parameters_after": 10**9},
    "a number": {"reason": 3},
    "a number too long to write": {"parameters_before": 10**5000, "parameters_after": 10**5000},
}


@pytest.mark.parametrize("name", HANDMADE)
def test_plans_made_by_hand_are_refused(name):
    model = copy.deepcopy(original("gpt2"))
    with pytest.raises(PlanError):
        apply_plan(model, by_hand(**HANDMADE[name]))
    assert differences(state_of(original("gpt2")), state_of(model)) == []


@pytest.mark.parametrize("name", HANDMADE)
def test_nothing_reads_a_plan_that_is_none(name):
    plan = by_hand(**HANDMADE[name])
    for use in (plan.to_json, plan.widths_after, lambda: plan.pairs_of(original("gpt2"))):
        with pytest.raises(PlanError):
            use()


@pytest.mark.parametrize("name", HANDMADE)
def test_the_constructor_refuses_what_is_no_plan(name):
    plan = by_hand(**HANDMADE[name])
    fields = {field: getattr(plan, field) for field in vars(plan)}
    with pytest.raises((PlanError, jaxtyping.TypeCheckError)):
        SparsityPlan(**fields)


@pytest.mark.parametrize(
    "kept",
    [
        3, None, [PAIR], {PAIR: [[0, 1], [0]]}, {PAIR: "all"}, {PAIR: [[10**30]] * 4}, {PAIR: [[0.0]] * 4},
        {PAIR: [[True]] * 4}, {3: [[0]]}, {PAIR: object()}, {PAIR: None},
    ],
)  # fmt: skip
def test_build_refuses_what_is_no_plan(kept):
    build = SparsityPlan.build.__func__
    build = getattr(build, "__wrapped__", build)  # without the check of shapes, which stops some of them even before
    with pytest.raises(PlanError):
        build(SparsityPlan, original("gpt2"), kept)


def test_the_counts_of_a_plan_must_be_those_of_the_model():
    plan, model = by_hand(), copy.deepcopy(original("gpt2"))
    lie = by_hand(parameters_after=plan.parameters_after - 1)
    with pytest.raises(PlanError, match=r"parameters_after is .* by this model"):
        apply_plan(model, lie)
    with pytest.raises(PlanError, match=r"parameters_before is .* by this model"):
        lie = by_hand(parameters_before=plan.parameters_before + 1, parameters_after=plan.parameters_after + 1)
        apply_plan(model, lie)
    apply_plan(model, plan)
    with pytest.raises(PlanError, match="plan is a dict"):
        apply_plan(model, {PAIR: torch.arange(4)})


def test_plans_of_earlier_releases_have_no_reason():
    content = json.loads(by_hand().to_json())
    del content["reason"]
    assert SparsityPlan.from_json(json.dumps(content)).reason == ""


def test_a_plan_of_what_is_left():
    model = copy.deepcopy(original("gpt2"))
    plan = random_plan(model, 2)
    assert plan.remaining(model).to_json() == plan.to_json()
    half = {name: kept for name, kept in plan.kept.items() if ".h.0." in name}
    apply_plan(model, SparsityPlan.build(model, half))
    left = plan.remaining(model)
    assert set(left.kept) == set(plan.kept) - set(half)
    apply_plan(model, left)
    whole = copy.deepcopy(original("gpt2"))
    apply_plan(whole, plan)
    assert differences(state_of(whole), state_of(model)) == []
    assert not plan.remaining(model).kept
    with pytest.raises(PlanError, match="neither that before nor that after"):
        random_plan(original("gpt2"), 3).remaining(model)


def test_a_model_without_weights_can_be_planned_for():
    with torch.device("meta"):
        model = ZOO["gpt2"].build()
    plan = SparsityPlan.build(model, {PAIR: torch.arange(4).repeat(4, 1)})
    assert plan.parameters_after < plan.parameters_before
    with pytest.raises(ecospa.UnsupportedModelError, match="no values"):
        ecospa.plan_shrink(model, 0.9, target_scope="blocks", width_multiple=1)
    apply_plan(model, plan)
    assert sum(p.numel() for p in model.parameters()) == plan.parameters_after
