"""Irregular widths: told where wider layers are as fast, by the table at plan time, and never of regular widths."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import ecospa
from ecospa import FailureSignatureWarning, WidthRule, width_check
from ecospa.__main__ import main
from ecospa.pairs import unit_positions
from ecospa.selection import best_units
from ecospa.sparsifier import pair_scores
from ecospa.width_check import irregular_rule, regular_widths
from tests.ecospa.test_forecast import saved_config


def gpt2() -> Any:
    """Heads of 16 and feed-forward layers of 128."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, n_inner=128, n_positions=16, vocab_size=64))


def narrowed(less: int) -> Any:
    """The model with some indices less in every feed-forward pair."""
    model = gpt2()
    pairs = [pair for pair in ecospa.coupled_pairs(model) if pair.kind is ecospa.PairKind.FFN]
    kept = {pair.name: unit_positions(pair, best_units(pair_scores(model, pair), pair.units - less)) for pair in pairs}
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept))
    return model


def timed(patch: pytest.MonkeyPatch, irregular: float) -> list[int]:
    """Every layer takes a second, an irregular width another time; returns the feed-forward widths that were asked."""
    asked: list[int] = []

    def layer_times(model: Any, heads: Sequence[Any], inner: Sequence[int]) -> tuple[list[float], list[float]]:
        asked.extend(inner)
        return [1.0 for _ in heads], [irregular if width % 16 else 1.0 for width in inner]

    patch.setattr(width_check, "layer_times", layer_times)
    return asked


def test_widths_that_cost_as_much_as_wider_ones_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = timed(monkeypatch, irregular=1.5)
    with pytest.warns(
        FailureSignatureWarning, match=r"2 of 6 pairs have irregular widths, transformer.h.0.mlp.ffn.* 16 \(feed"
    ):
        found = ecospa.check_widths(narrowed(27))
    assert found.no_speedup and len(found.irregular) == 2
    assert asked == [101, 112]
    assert found.time_ratio == pytest.approx((2 * 1.0 + 2 * 1.5) / 4)


def test_irregular_widths_that_are_faster_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, irregular=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ecospa.check_widths(narrowed(27))
    assert found.irregular and not found.no_speedup


def test_nothing_is_measured_or_told_of_regular_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = timed(monkeypatch, irregular=1.5)
    found = ecospa.check_widths(narrowed(32))
    assert (found.irregular, found.time_ratio, found.no_speedup, asked) == ((), 1.0, False, [])


def test_layers_are_really_timed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FailureSignatureWarning)
        assert 0 < ecospa.check_widths(narrowed(27)).time_ratio < 100


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (WidthRule.uniform(8), ""),
        (WidthRule(8, 16, 64), ""),
        (WidthRule.uniform(1), "multiples of qk 1, vo 1, ffn 1 are not multiples of 8"),
        (WidthRule(8, 8, 20), "multiples of ffn 20 are not multiples of 8"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_rule_is_held_against_the_table(rule: WidthRule, told: str, device: str) -> None:
    said = irregular_rule(rule, ecospa.coupled_pairs(gpt2()), device)
    assert (told in said) if told else said == ""
    assert irregular_rule(rule, ecospa.coupled_pairs(gpt2()), "unknown") == ""


def test_heads_that_no_multiple_of_eight_fits_have_a_finer_one() -> None:
    assert regular_widths(ecospa.coupled_pairs(gpt2()), "cpu").ffn == 16
    assert regular_widths(ecospa.coupled_pairs(narrow_heads()), "cpu").qk == 4
    with pytest.raises(ecospa.ConfigError, match="device is 'mps'"):
        regular_widths(ecospa.coupled_pairs(gpt2()), "mps")


def narrow_heads() -> Any:
    """Heads of 8."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=4, n_positions=16, vocab_size=64))


def test_a_plan_warns_of_irregular_widths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", saved_config(tmp_path, num_hidden_layers=2), "--target-scope", "blocks"]
    assert main([*words, "--width-multiple", "1"]) == 0
    assert "warning: IRREGULAR WIDTHS: multiples of qk 1" in capsys.readouterr().err
    assert main([*words, "--width-multiple", "8"]) == 0
    assert capsys.readouterr().err == ""
