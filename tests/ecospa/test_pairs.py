"""Pairs are found once per event, and those after a cut follow from the plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import ecospa
import ecospa.families
from ecospa.pairs import CoupledPair, narrowed_pairs
from tests.ecospa.loops import make, step
from tests.model_zoo import ZOO, build, random_plan

KINDS = sorted(ZOO)


def described(pairs: tuple[CoupledPair, ...]) -> list[Any]:
    """Everything that a pair says, as values that compare."""
    return [
        (
            pair.name, pair.kind, pair.groups, pair.width, pair.unit, pair.module, pair.block,
            [[(axis.parameter, axis.axis, axis.index.tolist()) for axis in side] for side in (pair.left, pair.right)],
        )
        for pair in pairs
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_after_a_cut_are_those_that_the_model_then_has(kind: str) -> None:
    model = build(kind)
    for seed in range(3):
        pairs, plan = ecospa.coupled_pairs(model), random_plan(model, seed)
        kept = {name: rows for number, (name, rows) in enumerate(plan.kept.items()) if number % 3 != seed}
        plan = ecospa.SparsityPlan.build(model, kept)
        ecospa.apply_plan(model, plan)
        assert described(narrowed_pairs(pairs, plan.kept)) == described(ecospa.coupled_pairs(model))


@pytest.mark.parametrize("kind", KINDS)
def test_query_heads_are_those_of_the_attention(kind: str) -> None:
    model = build(kind)
    for pair in ecospa.coupled_pairs(model):
        if pair.kind is ecospa.PairKind.FFN:
            assert pair.query_heads == 0
        else:
            family = ecospa.families.known_family(model.get_submodule(pair.block))
            assert pair.query_heads == family.geometry(model.get_submodule(pair.module)).query_heads


def test_a_block_of_no_family_is_refused() -> None:
    with pytest.raises(ecospa.UnsupportedModelError, match=r"Linear is no block of a known family"):
        ecospa.families.known_family(torch.nn.Linear(2, 2))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Classes of the models whose pairs are derived: every derivation ends with the search for shared weights.

    Copies of single blocks, which show whether foreign parts can be cut exactly, are other models.
    """
    found: list[str] = []
    last = ecospa.families._check_nothing_is_shared

    def watch(model: torch.nn.Module, pairs: list[CoupledPair]) -> None:
        if not isinstance(model, ecospa.exactness._Alone):
            found.append(type(model).__name__)
        last(model, pairs)

    with monkeypatch.context() as patched:
        patched.setattr(ecospa.families, "_check_nothing_is_shared", watch)
        yield found


@pytest.mark.parametrize("scorer", [None, ecospa.sparsifier.norm_products])
@pytest.mark.parametrize("config", [{"interval": 2}, {"pace": "paper", "interval": 1, "end_step": None, "top_k": 1.0}])
def test_an_event_derives_the_pairs_once(config: Any, scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that lands too; attaching derives apart from it."""
    model, optimizer, plain = make(**config)
    plain.release()
    sparsity = ecospa.CoupledSparsity(model, optimizer, plain.config, scorer=scorer)
    events = 0
    while not sparsity.finished:
        due = sparsity.next_event == sparsity.step + 1
        with counted(monkeypatch) as derived:
            step(model, optimizer, sparsity)
        optimizer.zero_grad()
        assert len(derived) == due
        events += due
    assert events > 1 and sparsity.reached
    with counted(monkeypatch) as derived:
        step(model, optimizer, sparsity)
    assert not derived


def test_an_event_that_cuts_nothing_derives_the_pairs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer, sparsity = make(interval=1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    sparsity.after_backward()
    optimizer.zero_grad()
    optimizer.step()
    with counted(monkeypatch) as derived, pytest.warns(ecospa.SkippedEventWarning, match="NaN or infinite"):
        sparsity.after_step(1)
    assert len(derived) == 1


@pytest.mark.parametrize("options", [{}, {"width_multiple": "auto"}, {"target_size": 1.0}])
def test_a_one_shot_plan_derives_the_pairs_once(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama-gqa")
    if options.get("width_multiple") == "auto":
        monkeypatch.setattr(ecospa.width_timing, "_fastest", lambda works, device: [1.0] * len(works))
    with counted(monkeypatch) as derived:
        ecospa.plan_shrink(model, **{"width_multiple": 2, "target_scope": "blocks", **options})
    assert len(derived) == 1


@pytest.mark.parametrize("by_block", [False, True])
def test_applying_a_plan_derives_the_pairs_once_per_model(by_block: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower is another model: its pairs are its own."""
    model, average = build("gpt2"), build("gpt2")
    optimizer = torch.optim.AdamW(model.parameters())
    plan = ecospa.plan_shrink(model, width_multiple=2, target_scope="blocks")
    with counted(monkeypatch) as derived:
        ecospa.apply_plan(model, plan, optimizer, [average], by_block=by_block)
    assert len(derived) == 2
