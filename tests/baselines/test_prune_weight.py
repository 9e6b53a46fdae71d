"""baselines.magnitude.prune_weight against a loop that anybody can check by eye."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines.magnitude import prune_weight


def by_hand(weight: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Sort all entries by magnitude, later ones first among equals, and set the first of them to zero."""
    rows, columns = weight.shape
    places = [(abs(float(weight[i, j])), -(i * columns + j), i, j) for i in range(rows) for j in range(columns)]
    pruned = weight.clone()
    for _, _, i, j in sorted(places)[: round(sparsity * rows * columns)]:
        pruned[i, j] = 0
    return pruned


def by_hand_pattern(weight: torch.Tensor, keep: int, run: int) -> torch.Tensor:
    """In every run of inputs all but the `keep` largest become zero; the earlier of equals stays."""
    pruned = weight.clone()
    for i in range(weight.shape[0]):
        for start in range(0, weight.shape[1], run):
            order = sorted(range(start, start + run), key=lambda j: (-abs(float(weight[i, j])), j))
            for j in order[keep:]:
                pruned[i, j] = 0
    return pruned


@given(
    rows=st.integers(1, 5), columns=st.integers(1, 9), sparsity=st.floats(0, 0.99), seed=st.integers(0, 99),
    ties=st.booleans(),
)  # fmt: skip
def test_unstructured_equals_the_loop(rows: int, columns: int, sparsity: float, seed: int, ties: bool) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weight = weight.round() if ties else weight
    assert torch.equal(prune_weight(weight, sparsity), by_hand(weight, sparsity))


@given(
    rows=st.integers(1, 4), runs=st.integers(1, 3), pattern=st.sampled_from([(2, 4), (1, 4), (4, 8), (1, 2), (3, 4)]),
    seed=st.integers(0, 99), ties=st.booleans(),
)  # fmt: skip
def test_patterns_equal_the_loop(rows: int, runs: int, pattern: tuple[int, int], seed: int, ties: bool) -> None:
    keep, run = pattern
    weight = torch.randn(rows, runs * run, generator=torch.Generator().manual_seed(seed))
    weight = weight.round() if ties else weight
    pruned = prune_weight(weight, pattern=f"{keep}:{run}")
    assert torch.equal(pruned, by_hand_pattern(weight, keep, run))
    assert torch.equal(pruned, prune_weight(weight, 1 - keep / run, f"{keep}:{run}"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_of_the_entries_goes_and_the_rest_is_untouched(dtype: torch.dtype) -> None:
    weight = torch.randn(16, 24).to(dtype)
    original = weight.clone()
    pruned = prune_weight(weight)
    assert torch.equal(weight, original) and pruned.dtype == dtype and pruned.shape == weight.shape
    assert int((pruned == 0).sum()) == 16 * 24 // 2
    assert torch.equal(pruned[pruned != 0], weight[pruned != 0])


def test_a_parameter_gives_a_plain_tensor() -> None:
    parameter = torch.nn.Linear(8, 4).weight
    pruned = prune_weight(parameter)
    assert not pruned.requires_grad and type(pruned) is torch.Tensor
    assert pruned.data_ptr() != parameter.data_ptr()


def test_equal_weights_lose_the_later_ones() -> None:
    assert prune_weight(torch.ones(2, 4), 0.5).tolist() == [[1.0] * 4, [0.0] * 4]
    assert prune_weight(torch.ones(1, 8), pattern="2:4").tolist() == [[1.0, 1.0, 0.0, 0.0] * 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, r"\[0, 1\)"),
        ({"sparsity": -0.1}, r"\[0, 1\)"),
        ({"sparsity": float("nan")}, r"\[0, 1\)"),
        ({"sparsity": "half"}, r"\[0, 1\)"),
        ({"sparsity": True}, r"\[0, 1\)"),
        ({"pattern": "4:2"}, "0 < n < m"),
        ({"pattern": "0:4"}, "0 < n < m"),
        ({"pattern": "4:4"}, "0 < n < m"),
        ({"pattern": "two:four"}, "0 < n < m"),
        ({"pattern": ""}, "0 < n < m"),
        ({"pattern": "2:5"}, "5 must divide the 8 inputs"),
        ({"sparsity": 0.7, "pattern": "2:4"}, "means 0.5"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prune_weight(torch.randn(4, 8), **arguments)


@pytest.mark.parametrize(
    "weight",
    [torch.randn(4), torch.randn(2, 2, 2), torch.ones(4, 4, dtype=torch.int64), torch.full((2, 2), float("nan")),
     torch.tensor([[1.0, float("inf")]]), [[1.0, 2.0]]],
)  # fmt: skip
def test_what_is_no_matrix_is_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight"):
        prune_weight(weight)
