"""The mathematics of Appendix A: aligned removal loses least, nothing removed loses nothing, a score is a norm."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ecospa
from benchmarks.models.language import build_model
from benchmarks.procedures.product_error import REMOVALS, kept_indices, pair_products, relative_error
from tests.benchmarks.tiny_runs import settings

Product = tuple[torch.Tensor, torch.Tensor]


def product(seed: int, scaled: bool = True) -> Product:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(24, 16, generator=generator, dtype=torch.float64)
    right = torch.randn(16, 20, generator=generator, dtype=torch.float64)
    scales = torch.randn(2, 16, generator=generator, dtype=torch.float64).exp() if scaled else torch.ones(2, 16)
    return left * scales[0], right * scales[1][:, None]


def error(pair: Product, removed: int, removal: str, seed: int = 0) -> float:
    kept = kept_indices(*pair, removed, removal, torch.Generator().manual_seed(seed))
    return relative_error(*pair, kept)


@pytest.mark.parametrize("removal", REMOVALS)
def test_nothing_removed_is_no_error_and_everything_is_all_of_it(removal: str) -> None:
    assert error(product(0), 0, removal) == 0.0
    assert error(product(0), 16, removal) == pytest.approx(1.0)


@given(seed=st.integers(0, 10_000), removed=st.integers(1, 15), scaled=st.booleans())
def test_aligned_loses_no_more_than_misaligned(seed: int, removed: int, scaled: bool) -> None:
    pair = product(seed, scaled)
    assert error(pair, removed, "aligned") <= error(pair, removed, "misaligned") + 0.05


def test_aligned_loses_least_on_average() -> None:
    for removed in (4, 8, 12):
        means = {
            removal: sum(error(product(seed), removed, removal, seed) for seed in range(20)) for removal in REMOVALS
        }
        assert means["aligned"] < means["misaligned"]
        assert means["aligned"] < 0.7 * means["random"]


def test_a_score_is_the_norm_of_what_its_index_takes_away() -> None:
    left, right = product(3)
    scores = ecospa.importance.index_scores(left, right)
    for index in range(16):
        kept = torch.arange(16) != index
        lost = (left @ right - left[:, kept] @ right[kept]).norm()
        assert scores[index].item() == pytest.approx(lost.item(), rel=1e-9)


def test_misaligned_keeps_what_both_keep() -> None:
    left, right = torch.diag(torch.tensor([1.0, 2.0, 3.0])), torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    kept = kept_indices(left, right, 1, "misaligned", torch.Generator())
    assert kept.tolist() == [False, True, False]
    assert kept_indices(left, right, 1, "aligned", torch.Generator()).sum() == 2
    with pytest.raises(ValueError, match="removal is 'sideways'"):
        kept_indices(left, right, 1, "sideways", torch.Generator())


def test_the_products_of_a_model_are_those_of_its_heads() -> None:
    model = build_model(settings().model, seed=0)
    products = list(pair_products(model))
    assert len(products) == 2 * (4 + 4 + 1)  # layers * (query/key heads + value/output heads + feed-forward)
    attention = model.transformer.h[0].attn
    query, key, value = attention.c_attn.weight.detach().double().split(32, dim=1)
    torch.testing.assert_close(products[0][0] @ products[0][1], query[:, :8] @ key[:, :8].T)
    output = attention.c_proj.weight.detach().double()
    torch.testing.assert_close(products[4][0] @ products[4][1], value[:, :8] @ output[:8])
    feed_forward = model.transformer.h[0].mlp
    expected = feed_forward.c_fc.weight.detach().double() @ feed_forward.c_proj.weight.detach().double()
    torch.testing.assert_close(products[8][0] @ products[8][1], expected)
