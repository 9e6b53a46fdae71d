"""Methods can be told apart, by people who see colours otherwise too, and always look the same."""

from __future__ import annotations

from collections import Counter

import pytest

import baselines
from paper_tables.drawing.style import (
    PALETTE,
    SPARE_COLORS,
    SPARE_MARKERS,
    TALL,
    WIDTH,
    color,
    line_style,
    look,
    marker,
    panels,
)
from paper_tables.methods import CONTROL, KNOWN, Method, described_by, label, method, removes
from results import MethodInfo, Store
from tests.results.factory import make_record

NEWCOMERS = ("mine", "my_package_method", "prune_all", "adaptive", "hessian_2")


def test_no_two_methods_look_the_same() -> None:
    looks = Counter(look(method) for method in KNOWN)
    assert [pair for pair, count in looks.items() if count > 1] == [], "give one of them another line in methods.KNOWN"


def test_known_methods_share_few_colours() -> None:
    spare = set(SPARE_COLORS)
    assert {color(method) for method in KNOWN} - spare <= set(PALETTE)
    assert len(PALETTE) <= 8


def test_a_newcomer_looks_the_same_every_time_and_like_nobody_known() -> None:
    known = {look(method) for method in KNOWN}
    assert not known & {(shade, mark) for shade in SPARE_COLORS for mark in SPARE_MARKERS}
    assert [look(name) for name in NEWCOMERS] == [
        ("#6f62c4", "P"), ("#8a6d3b", "s"), ("#8a6d3b", "P"), ("#6f62c4", "^"), ("#6f62c4", "p"),
    ]  # fmt: skip
    assert all(line_style(name) == "-" for name in NEWCOMERS)


def test_two_unknown_methods_of_the_records_never_share_a_look() -> None:
    count = len(SPARE_COLORS) * len(SPARE_MARKERS)
    names = [f"custom_{number}" for number in range(count)]
    assert len({look(name) for name in names}) < count  # by name alone some do
    with described_by([make_record(number, method=name) for number, name in enumerate(names)]):
        assert len({look(name) for name in names}) == count
        assert look("dense") == ("#1b1f24", "*")


def test_methods_of_one_group_have_colours_of_their_own() -> None:
    """They stand in one panel; a variant of a method (another granularity, step, seed) may share its colour."""
    groups = ("structures by gradients", "structures by activations or weights", "importance metric")
    for group in groups:
        shades = [color(name) for name, known in KNOWN.items() if known.group == group]
        assert len(shades) == len(set(shades)) > 4, group


@pytest.mark.parametrize("name", KNOWN)
def test_masks_are_dotted_and_nothing_else(name: str) -> None:
    assert (line_style(name) == ":") == (removes(name) == "zeros")
    assert (line_style(name) == "--") == (method(name).group == CONTROL)


def test_a_record_says_how_a_method_is_shown() -> None:
    older = make_record(1, method="mine", method_info=MethodInfo("My old name", "structures", "mine"))
    newer = make_record(2, method="mine", method_info=MethodInfo("My method", "zeros", "mine"))
    known = make_record(3, method="wanda", method_info=MethodInfo("Other", "structures", "mine"))
    with described_by([newer, older, known, make_record(4, method="silent")]):
        assert (label("mine"), removes("mine"), line_style("mine")) == ("My method", "zeros", ":")
        assert label("wanda") == "Wanda" and label("silent") == "silent"
    assert method("mine") == Method("mine")


def test_what_is_known_of_a_method_is_what_its_class_says() -> None:
    """A class may change its title; then the map of the names that old records carry follows."""
    for name, found in baselines.methods().items():
        assert {"title", "removes", "group"} <= vars(found).keys(), f"{name} states them itself"
        if name in KNOWN:
            known = KNOWN[name]
            assert (known.title, known.removes, known.group) == (found.title, found.removes, found.group)


def test_masks_are_the_methods_whose_records_store_zeros() -> None:
    stored: dict[str, list[float]] = {}
    for record in Store().records():
        metrics = record.metrics
        if {"block_parameters", "block_parameters_nonzero"} <= metrics.keys():
            share = metrics["block_parameters_nonzero"].value / metrics["block_parameters"].value
            stored.setdefault(record.method, []).append(share)
    assert len(stored) > 20
    for name, shares in stored.items():
        assert (min(shares) < 0.95) == (removes(name) == "zeros"), name


def test_every_point_of_a_grid_over_k_and_theta_has_a_look_and_a_name_of_its_own() -> None:
    names = [f"ecospa_k{k}_theta{theta}" for k in (10, 30, 50) for theta in (70, 90, 95)]
    assert len({(color(name), line_style(name)) for name in names}) == 9
    assert len({(color(name), marker(name)) for name in names}) == 9
    assert [label(names[0]), label(names[-1])] == ["K 10%, theta 70%", "K 50%, theta 95%"]
    other = "ecospa_k12_theta70"  # a grid without looks of its own: a custom method
    assert color(other) in SPARE_COLORS and label(other) == "K 12%, theta 70%"


def test_many_panels_stand_in_two_columns_each_with_room_for_its_labels() -> None:
    tall, few = panels(TALL)
    assert tall.get_size_inches()[0] == WIDTH and len({axis.get_position().x0 for axis in few}) == 1
    wide, many = panels(2 * TALL)
    assert list(wide.get_size_inches()) == [2 * WIDTH, tall.get_size_inches()[1]]
    first, second, third = (axis.get_position() for axis in many[:3])
    assert first.y0 == second.y0 > third.y0 and first.x0 == third.x0
    assert second.x0 - first.x0 == pytest.approx(0.5)
    widths = [
        axis.get_position().width * figure.get_size_inches()[0] for figure, axis in ((tall, few[0]), (wide, many[0]))
    ]
    assert widths[0] == pytest.approx(widths[1])
