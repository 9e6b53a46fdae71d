"""No architecture of transformers is cut wrongly in silence: each is exact, or refused by name."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import pytest
import torch

import ecospa
from tests.architectures import SPECIAL, class_names, model_class
from tests.model_zoo import random_plan, removed_masks
from tests.tiny_models import NotTiny, tiny_batch, tiny_model, tiny_output

TOLERANCE = 1e-10
LEAST = {"CAUSAL_LM": 40, "MASKED_LM": 15, "IMAGE_CLASSIFICATION": 5, "SEQ_TO_SEQ_CAUSAL_LM": 10}
"""Exact architectures of every task that a release of transformers has at least."""


@torch.no_grad()
def verdict(name: str) -> tuple[str, str]:
    """Verdict on a class: "exact", "refused", "wrong", "not tiny" or "not run", and the reason where there is one."""
    try:
        model = tiny_model(model_class(name), **SPECIAL.get(name, {}))
    except NotTiny as error:
        return "not tiny", str(error)
    try:
        plan = random_plan(model, 3)
    except ecospa.UnsupportedModelError as error:
        assert "Way out" in str(error)
        return "refused", str(error).partition(". Supported families")[0]
    try:
        batch = tiny_batch(model)
        tiny_output(model, batch)
    except Exception as error:  # the dense model wants other inputs, or parts that are not installed
        return "not run", f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    dense, masks = copy.deepcopy(model), removed_masks(model, plan)
    for parameter_name, parameter in dense.named_parameters():
        parameter.mul_(masks[parameter_name])
    ecospa.apply_plan(model, plan)
    difference = (tiny_output(model, batch) - tiny_output(dense, batch)).abs().max()
    return ("exact", "") if difference <= TOLERANCE else ("wrong", f"{difference:.1e}")


@pytest.mark.slow
@pytest.mark.parametrize("task", LEAST)
def test_every_architecture_is_exact_or_refused(task: str, record_property: Callable[[str, object], None]) -> None:
    verdicts = {name: verdict(name) for name in sorted(set(class_names(task).values()))}
    counts = Counter(what for what, _ in verdicts.values())
    for what, number in counts.items():
        record_property(what, number)
    print(task, dict(counts), *(f"{name}: {what} {why}" for name, (what, why) in verdicts.items()), sep="\n  ")
    assert {name: why for name, (what, why) in verdicts.items() if what == "wrong"} == {}
    assert counts["exact"] >= LEAST[task]
