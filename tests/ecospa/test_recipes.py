"""Blocks of the package's README, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import ecospa
from ecospa.sparsifier import side_norms
from tests.ecospa.loops import make, step

README = Path(ecospa.__file__).parent / "README.md"


def recipe(heading: str) -> str:
    """The only Python block under a heading."""
    section = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(block)


def test_a_new_importance_ranks_and_scores_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    block = recipe("A new importance")
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    model, optimizer, plain = make(interval=2)
    plain.release()
    names: dict[str, Any] = {"model": model, "optimizer": optimizer, "config": plain.config}
    exec(compile(block, str(README), "exec"), names)
    sparsity = names["sparsity"]
    sums: dict[str, float] = {}
    asked: list[Any] = []
    plan = ecospa.CoupledSparsifier.plan

    def watch(self: Any, model: Any, importances: Any, goal: Any, scores: Any, pairs: Any) -> Any:
        wanted = {pair.name: side_norms(model, pair, "right") for pair in pairs}
        assert all(torch.equal(scores[name], value) for name, value in wanted.items())
        asked.append(dict(importances))
        return plan(self, model, importances, goal, scores, pairs)

    monkeypatch.setattr(ecospa.CoupledSparsifier, "plan", watch)
    gradients: dict[str, torch.Tensor] = {}
    optimizer.register_step_pre_hook(
        lambda *_: gradients.update({name: p.grad.clone() for name, p in model.named_parameters()})
    )
    for _ in range(2):
        pairs = ecospa.coupled_pairs(model)
        step(model, optimizer, sparsity)
        for pair in pairs:
            means = [
                float(gradients[axis.parameter].double().index_select(axis.axis, axis.index.flatten()).abs().mean())
                for axis in pair.axes
                if gradients[axis.parameter].ndim > 1
            ]
            sums[pair.name] = sums.get(pair.name, 0.0) + sum(means) / len(means) / 2
    assert len(asked) == 1 and asked[0] == pytest.approx(sums, rel=1e-5)
    assert len(sparsity.history) == 2


def test_the_tour_names_files_that_exist() -> None:
    named = re.findall(r"`([a-z_]+(?:\.py|/))`", README.read_text())
    assert len(named) > 25
    assert [name for name in named if not (README.parent / name).exists()] == []
