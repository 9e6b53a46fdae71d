"""Wanda's masks against a sort of every output row, written out entry by entry."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import baselines
import ecospa
from baselines.wanda import prune_weight
from tests.baselines.runs import Run


def scores_by_hand(weight: torch.Tensor, x: torch.Tensor) -> list[list[float]]:
    norms = [sum(float(value) ** 2 for value in column) ** 0.5 for column in x.t()]
    return [[abs(float(w)) * norm for w, norm in zip(row, norms, strict=True)] for row in weight]


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 0.99]))
def test_the_smallest_of_every_row_go(seed: int, sparsity: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    x = torch.randn(20, 12, generator=generator, dtype=torch.float64) * torch.arange(1, 13)
    result = prune_weight(weight, x, sparsity)
    for row, scores in enumerate(scores_by_hand(weight, x)):
        gone = sorted(range(12), key=lambda column: scores[column])[: int(12 * sparsity)]
        expected = [0.0 if column in gone else float(weight[row, column]) for column in range(12)]
        assert result[row].tolist() == expected


@pytest.mark.parametrize(("keep", "run"), [(2, 4), (1, 4), (4, 6)])
def test_the_largest_of_every_run_stay(keep: int, run: int) -> None:
    weight, x = torch.randn(5, 12, dtype=torch.float64), torch.randn(20, 12, dtype=torch.float64)
    result = prune_weight(weight, x, pattern=f"{keep}:{run}")
    for row, scores in enumerate(scores_by_hand(weight, x)):
        for start in range(0, 12, run):
            best = sorted(range(start, start + run), key=lambda column: -scores[column])[:keep]
            for column in range(start, start + run):
                assert float(result[row, column]) == (float(weight[row, column]) if column in best else 0.0)


def test_inputs_decide_where_magnitudes_would_not() -> None:
    weight, x = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[9.0, 1.0, 1.0, 1.0]])
    assert prune_weight(weight, x, 0.5).tolist() == [[1.0, 0.0, 0.0, 4.0]]


def test_of_equal_scores_the_earlier_goes() -> None:
    assert prune_weight(torch.ones(1, 4), torch.ones(3, 4), 0.5).tolist() == [[0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtype_and_arguments_are_kept(dtype: torch.dtype) -> None:
    weight, x = torch.randn(4, 8).to(dtype), torch.randn(6, 8).to(dtype)
    before = weight.clone()
    assert prune_weight(weight, x).dtype == dtype
    assert torch.equal(weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 1}, "sparsity is 1"),
        ({"sparsity": True}, "sparsity"),
        ({"pattern": "2:3"}, "3 must divide the 8 inputs"),
        ({"pattern": "2:4", "sparsity": 0.7}, "give one of them"),
        ({"inputs": torch.ones(3, 7)}, "7 columns"),
        ({"inputs": torch.ones(3)}, "inputs is"),
        ({"inputs": torch.full((2, 8), float("inf"))}, "infinite"),
        ({"weight": torch.ones(2, 8, dtype=torch.int64)}, "weight is"),
    ],
)
def test_senseless_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prune_weight(**{"weight": torch.ones(2, 8), "inputs": torch.ones(3, 8), **change})


def test_activations_that_are_not_finite_are_refused_in_a_model_too() -> None:
    run = Run.fresh(baselines.load("wanda"))
    run.model.transformer.h[0].attn.c_proj.weight.data[3, 4] = float("nan")
    with pytest.raises(ecospa.ConfigError, match=r"transformer\.h\.0\.mlp\.c_fc: its inputs are NaN or infinite"):
        run.finish()
