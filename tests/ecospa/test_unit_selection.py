"""The ranking of all units against a sorted list of them, K within kinds, importances by kind: made-up numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecospa.importance import divided_by_kind, position_sums, removal_effects, unit_sums
from ecospa.selection import PairWidth, choose_widths, first_of_kinds, pair_counts, retained_scores
from ecospa.unit_selection import choose_units


def entry(effects: list[list[float]], step: int = 1, floor: int = 1, cost: int = 1) -> PairWidth:
    """A pair of some effects, (groups, units); `cost` is the parameters of one unit over all groups."""
    retained = retained_scores(torch.tensor(effects, dtype=torch.float64))
    return PairWidth(len(effects[0]), step, floor, cost, retained, float(len(effects[0])))


def test_the_least_units_of_all_pairs_go_first() -> None:
    pairs = {"a": entry([[5.0, 1.0, 4.0]]), "b": entry([[2.0, 9.0, 3.0]])}
    for removable, widths in ((1, {"a": 2}), (2, {"a": 2, "b": 2}), (3, {"a": 2, "b": 1}), (4, {"a": 1, "b": 1})):
        changed, wanted = choose_units(pairs, removable, land=True)
        assert changed == widths
        assert wanted == {name: float(widths.get(name, 3)) for name in pairs}
    assert choose_units(pairs, 0, land=True)[0] == {}


def test_effects_count_for_each_parameter_that_goes() -> None:
    dear, cheap = [[2.0, 2.0]], [[3.0, 3.0]]
    assert choose_units({"a": entry(dear), "b": entry(cheap)}, 1, land=True)[0] == {"a": 1}
    assert choose_units({"a": entry(dear), "b": entry(cheap, cost=2)}, 2, land=True)[0] == {"b": 1}


def test_every_group_drops_its_own_least_units() -> None:
    """1 + 1 of the first pair against 2.5 of the second: the first goes, though its units lie at different places."""
    pairs = {"heads": entry([[1.0, 9.0], [9.0, 1.0]], cost=2), "flat": entry([[2.5, 9.0]], cost=2)}
    assert choose_units(pairs, 2, land=True)[0] == {"heads": 1}


def test_steps_and_floors_hold() -> None:
    pairs = {"a": entry([[0.0] * 10], step=4, floor=4), "b": entry([[1.0] * 6], floor=2)}
    changed, _ = choose_units(pairs, 100, land=True)
    assert changed == {"a": 4, "b": 2}  # 10 comes down to 8 and then to 4


def test_a_step_that_does_not_fit_waits_unless_the_run_lands() -> None:
    pairs = {"a": entry([[0.0] * 4], step=2, cost=5), "b": entry([[1.0] * 4])}
    assert choose_units(pairs, 9, land=False)[0] == {}
    assert choose_units(pairs, 9, land=True)[0] == {"b": 1}


VALUES = st.lists(st.floats(0, 100), min_size=1, max_size=6)


@given(VALUES, VALUES, VALUES, st.integers(0, 18))
def test_it_is_the_sorted_list_of_all_units(a: list[float], b: list[float], c: list[float], removable: int) -> None:
    pairs = {"a": entry([a]), "b": entry([b]), "c": entry([c])}
    changed, _ = choose_units(pairs, removable, land=True)
    gone = {name: pair.width - changed.get(name, pair.width) for name, pair in pairs.items()}
    all_units = sorted(value for values in (a, b, c) for value in sorted(values)[:-1])  # the best of a pair stays
    cost = sum(sum(sorted(values)[: gone[name]]) for name, values in zip("abc", (a, b, c), strict=True))
    assert sum(gone.values()) == min(removable, len(all_units))
    assert cost == pytest.approx(sum(all_units[: sum(gone.values())]), abs=1e-9)


def test_k_within_kinds_takes_its_share_of_each() -> None:
    kinds = {"q1": "qk", "q2": "qk", "q3": "qk", "q4": "qk", "f1": "ffn", "f2": "ffn"}
    assert pair_counts(kinds, 0.3) == {"qk": 2, "ffn": 1}
    assert pair_counts(dict.fromkeys(kinds, ""), 0.3) == {"": 2}
    assert first_of_kinds(list(kinds), kinds, {"qk": 2, "ffn": 1}) == ["q1", "q2", "f1"]
    with pytest.raises(ValueError, match="top_k is 0"):
        pair_counts(kinds, 0)
    flat = {name: entry([[1.0] * 16], cost=1) for name in kinds}
    importances = {name: float(number) for number, name in enumerate(kinds)}
    for by, cut in ((None, {"q1", "q2"}), (kinds, {"q1", "q2", "f1"})):
        chosen, _ = choose_widths(flat, importances, 0.3, 0.7, 10**9, compound=False, land=False, kinds=by)
        assert set(chosen) == cut


def test_a_kind_that_is_at_its_floor_leaves_its_place_to_no_other_kind() -> None:
    pairs = {"q": entry([[1.0] * 8], floor=8), "f": entry([[1.0] * 8]), "g": entry([[1.0] * 8])}
    kinds = {"q": "qk", "f": "ffn", "g": "ffn"}
    chosen, _ = choose_widths(
        pairs, {"q": 0.0, "f": 1.0, "g": 2.0}, 0.5, 0.7, 10**9, compound=False, land=False, kinds=kinds
    )
    assert set(chosen) == {"f"}


def test_importances_by_kind() -> None:
    kinds = {"a": "qk", "b": "qk", "c": "ffn", "d": "ffn", "e": "vo"}
    found = divided_by_kind({"a": 1.0, "b": 3.0, "c": 100.0, "d": 300.0, "e": 0.0}, kinds)
    assert found == {"a": 0.5, "b": 1.5, "c": 0.5, "d": 1.5, "e": 0.0}
    broken = divided_by_kind({"a": math.nan, "b": 3.0, "c": 1.0, "d": 1.0, "e": 2.0}, kinds)
    assert math.isnan(broken["a"]) and broken["c"] == 1.0


def test_sums_of_units() -> None:
    products = torch.tensor([[1.0, -2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    along = position_sums(products, 1)
    assert along.tolist() == [2.0, -1.0, 4.0, 5.0] and along.dtype == torch.float64
    assert position_sums(torch.tensor([1.0, 2.0]), 0).tolist() == [1.0, 2.0]
    index = torch.arange(4).view(1, 4, 1)
    assert unit_sums(along, index, 1).tolist() == [[2.0, -1.0, 4.0, 5.0]]
    assert unit_sums(along, index, 2).tolist() == [[6.0, 4.0]]  # rotary partners (0, 2) and (1, 3)
    assert unit_sums(along, index.view(1, 2, 2), 1).tolist() == [[1.0, 9.0]]  # copies of query heads
    left, right = torch.tensor([[-3.0, 1.0]]).double(), torch.tensor([[1.0, 1.0]]).double()
    assert removal_effects(left, right).tolist() == [[2.0, 1.0]]
