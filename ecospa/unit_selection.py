"""Widths from a ranking of all units together, in the place of K pairs and theta: pure functions.

Deviation: the paper ranks pairs, and cuts a chosen pair by a share of its own score. Here every index competes with
every other of the model, by what its removal does to the loss for each parameter that goes with it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

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
    width = {name: pair.width for name, pair in pairs.items()}
    waiting = [step for order, name in enumerate(pairs) if (step := _next_step(pairs[name], width[name], order, name))]
    heapq.heapify(waiting)
    while waiting:
        _, order, name, narrower = heapq.heappop(waiting)
        cost = (width[name] - narrower) * pairs[name].unit_parameters
        if cost > removable:
            if land:
                continue
            break
        removable -= cost
        width[name] = narrower
        if following := _next_step(pairs[name], narrower, order, name):
            heapq.heappush(waiting, following)
    changed = {name: now for name, now in width.items() if now != pairs[name].width}
    return changed, {name: float(now) for name, now in width.items()}


def _next_step(pair: PairWidth, width: int, order: int, name: str) -> tuple[float, int, str, int] | None:
    """Effect per parameter of the next step of a pair, its place, its name and the narrower width."""
    narrower = pair.narrower(width)
    if narrower is None:
        return None
    effect = float(pair.retained[width] - pair.retained[narrower])
    return effect / ((width - narrower) * pair.unit_parameters), order, name, narrower
