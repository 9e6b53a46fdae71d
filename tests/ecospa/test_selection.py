"""Selection against brute force and by its contract: K, theta, rounding, floors, landing."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecospa.selection import PairWidth, choose_widths, retained_scores, select_indices, select_pairs, theta_width


@pytest.mark.parametrize(
    ("count", "top_k", "expected"), [(10, 0.3, 3), (10, 0.31, 4), (3, 0.01, 1), (7, 1.0, 7), (12, 0.3, 4)]
)
def test_select_pairs_takes_the_ceiling(count, top_k, expected):
    values = {f"p{i}": float((7 * i) % count) for i in range(count)}
    chosen = select_pairs(values, top_k)
    assert len(chosen) == expected
    assert chosen == sorted(values, key=values.get)[:expected]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.floats(0.05, 1.0))
def test_select_indices_is_the_smallest_set(values, theta):
    scores = torch.tensor(values, dtype=torch.float64)
    kept = select_indices(scores, theta)
    assert kept.tolist() == sorted(set(kept.tolist()))
    goal = theta * scores.sum().item()
    assert scores[kept].sum().item() >= goal * (1 - 1e-9)
    if len(kept) > 1:
        best = max(scores[list(c)].sum().item() for c in itertools.combinations(range(len(values)), len(kept) - 1))
        assert best < goal * (1 + 1e-9) + 1e-300


def test_select_indices_keeps_theta_of_flat_scores():
    assert len(select_indices(torch.ones(100), 0.9)) == 90
    assert select_indices(torch.tensor([1.0, 5.0, 1.0, 3.0]), 0.8).tolist() == [1, 3]


@pytest.mark.parametrize("theta", [0.0, -0.1, 1.1, float("nan")])
def test_theta_out_of_range(theta):
    with pytest.raises(ValueError, match="importance_threshold"):
        select_indices(torch.ones(4), theta)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_broken_scores_are_refused(bad):
    with pytest.raises(ValueError, match="negative, NaN or infinite"):
        select_indices(torch.tensor([1.0, bad]), 0.9)
    with pytest.raises(ValueError, match="importance of a"):
        select_pairs({"a": float("nan")}, 0.5)


def test_retained_scores_over_heads():
    scores = torch.tensor([[3.0, 1.0], [0.0, 4.0]])
    assert retained_scores(scores).tolist() == [0.0, 7.0, 8.0]
    assert retained_scores(scores, per_head=True).tolist() == [0.0, 0.75, 1.0]
    assert theta_width(retained_scores(scores), 0.875, 2) == pytest.approx(1.0)


def pair(width=32, step=8, floor=8, cost=10, wanted=None):
    retained = torch.arange(width + 1, dtype=torch.float64)
    return PairWidth(width, step, floor, cost, retained, float(width) if wanted is None else wanted)


def paced(multiple, events):
    """Widths of one pair over repeated events at the paper's pace with flat scores."""
    width, wanted, widths = 64, 64.0, []
    for _ in range(events):
        current = PairWidth(width, multiple, 1, 1, torch.arange(width + 1, dtype=torch.float64), wanted)
        chosen, wants = choose_widths({"a": current}, {"a": 1.0}, 1.0, 0.9, 10**9, compound=False, land=True)
        width, wanted = chosen.get("a", width), wants["a"]
        widths.append(width)
    return widths


def test_rounding_never_stalls_and_keeps_the_pace():
    fine, coarse = paced(1, 12), paced(8, 12)
    assert fine[0] == 58  # 0.9 * 64 = 57.6, rounded up
    assert coarse[0] == 64 and coarse[1] == 56  # 57.6 waits at 64, 51.84 passes 56
    for exact, rounded in zip(fine, coarse, strict=True):
        assert exact <= rounded < exact + 9
    assert coarse[-1] == 24  # 64 * 0.9 ** 12 = 18.1


def test_only_the_least_important_pairs_are_cut():
    pairs = {name: pair() for name in "abcdefghij"}
    importances = {name: float(i) for i, name in enumerate(pairs)}
    chosen, wanted = choose_widths(pairs, importances, 0.3, 0.7, 10**9, compound=False, land=True)
    assert chosen == {"a": 24, "b": 24, "c": 24}
    assert all(wanted[name] == 32.0 for name in "defghij")


def test_a_pair_at_its_floor_takes_no_place():
    pairs = {"low": pair(width=8), "next": pair()}
    chosen, _ = choose_widths(pairs, {"low": 0.0, "next": 1.0}, 0.5, 0.7, 10**9, compound=False, land=True)
    assert chosen == {"next": 24}


@given(st.integers(0, 700), st.sampled_from([0.3, 1.0]))
def test_landing_is_within_one_step_and_never_below(removable, top_k):
    pairs = {"a": pair(), "b": pair(), "c": pair(cost=3)}
    chosen, _ = choose_widths(pairs, {"a": 2.0, "b": 1.0, "c": 3.0}, top_k, 0.9, removable, compound=True, land=True)
    removed = sum((pairs[name].width - width) * pairs[name].unit_parameters for name, width in chosen.items())
    assert removed <= removable
    widths = {name: chosen.get(name, own.width) for name, own in pairs.items()}
    for name, own in pairs.items():  # nothing is left that would still fit
        assert widths[name] == own.floor or own.step * own.unit_parameters > removable - removed
    assert all(width % 8 == 0 and width >= 8 for width in chosen.values())


def test_truncated_own_pace_lands_too():
    pairs = {"a": pair(), "b": pair(cost=1)}
    chosen, _ = choose_widths(pairs, {"a": 0.0, "b": 1.0}, 0.5, 0.2, 90, compound=False, land=True)
    assert chosen == {"a": 24, "b": 24}
