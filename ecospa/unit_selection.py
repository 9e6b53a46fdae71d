"""Widths from a ranking of all units together, in the place of K pairs and theta: pure functions.

Deviation: the paper ranks pairs, and cuts a chosen pair by a share of its own score. Here every index competes with
every other of the model, by what its removal does to the loss for each parameter that goes with it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from ecospa.selection import PairWidth


def choose_units(
    pairs: Mapping[str, PairWidth], removable: int, *, land: bool
) -> tuple[dict[str, int], dict[str, float]]:
    """Widths after one event that removes the units of least effect per parameter, as long as they fit.

    e(step from w to w') = (retained[w] - retained[w']) / ((w - w') * unit_parameters)

    Every group of a pair drops its own least units, so that all groups stay equally wide: the effect of a step is the
    sum over groups. Units of a pair go in the order of their effects, so its steps never become cheaper, and taking
    the cheapest step of any pair again and again is the ranking of all units.

    Args:
        pairs: every pair by name, `retained` being the effect that is left with its best units.
        removable: parameters that may go at most.
        land: `removable` is what separates the model from its target: where the cheapest step no longer fits, dearer
            ones that do bring the size within one width step of it. Otherwise that step waits for the next event.

    Returns:
        New widths of the pairs that change, and the widths of all pairs as the wanted ones; both in units. Of equal
        steps that of the earlier pair is taken.
    """

    def effect(name: str, width: int, narrower: int) -> float:
        pair = pairs[name]
        return float(pair.retained[width] - pair.retained[narrower]) / ((width - narrower) * pair.unit_parameters)

    width = take_steps(pairs, removable, effect, land=land)
    changed = {name: now for name, now in width.items() if now != pairs[name].width}
    return changed, {name: float(now) for name, now in width.items()}


Price = Callable[[str, int, int], float]
"""(name of a pair, its width, the next smaller one) -> price of that step; it never falls on the way of one pair."""


def take_steps(pairs: Mapping[str, PairWidth], removable: int, price: Price, *, land: bool = True) -> dict[str, int]:
    """Widths after the cheapest step of any pair, again and again, as long as it fits.

    Args:
        pairs: every pair by name.
        removable: parameters that may go at most.
        price: of a step; of equal ones that of the earlier pair is taken.
        land: pass over a step that no longer fits, for dearer ones that do; False ends with it.

    Returns:
        Width of every pair, in units.
    """
    width = {name: pair.width for name, pair in pairs.items()}
    waiting: list[tuple[float, int, str, int]] = []

    def offer(order: int, name: str) -> None:
        if (narrower := pairs[name].narrower(width[name])) is not None:
            heapq.heappush(waiting, (price(name, width[name], narrower), order, name, narrower))

    for order, name in enumerate(pairs):
        offer(order, name)
    while waiting:
        _, order, name, narrower = heapq.heappop(waiting)
        cost = (width[name] - narrower) * pairs[name].unit_parameters
        if cost <= removable:
            removable -= cost
            width[name] = narrower
            offer(order, name)
        elif not land:
            break
    return width
