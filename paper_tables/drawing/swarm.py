"""Points of a scatter plot moved sideways, as little as needed, so that none covers another (a beeswarm plot)."""

from __future__ import annotations

from collections.abc import Sequence

_TRIES = 12


def swarm(points: Sequence[tuple[float, float]], width: float, height: float, first: int | None = None) -> list[float]:
    """Return an x for every point, in order: the nearest to its own at which no earlier one is in its way.

    Args:
        points: (x, y), both as shares of the panel.
        width: of a marker, as a share of the panel.
        height: of a marker, as a share of the panel.
        first: index of the point that keeps its place whatever else there is.
    """
    placed: dict[int, tuple[float, float]] = {}
    ordered = sorted(range(len(points)), key=lambda index: (index != first, points[index][1]))
    for index in ordered:
        x, y = points[index]
        steps = [0.0, *(sign * width * step for step in range(1, _TRIES) for sign in (1, -1))]
        free = [
            x + aside
            for aside in steps
            if all(abs(x + aside - left) >= 0.99 * width or abs(y - low) >= height for left, low in placed.values())
        ]
        placed[index] = (free[0] if free else x, y)
    return [placed[index][0] for index in range(len(points))]
