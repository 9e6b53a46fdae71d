"""Numbers as people read them: four significant digits at most, two of the interval, one unit per kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from paper_tables.analysis.intervals import Interval

NOTHING = "-"
"""Stands where the records of a row hold no such number; never a guess."""
_MISSED = 0.015  # of the blocks; less is the rounding of widths
OUT_OF_RANGE = "out of range"
"""Stands where they hold one that is no measurement: too large to be added up, or a ratio to nothing."""

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_FIXED = {"milliseconds": (1e-3, "ms"), "megabytes": (1e6, "MB"), "percent": (1e-2, "%")}


def decimals(value: float, digits: int = 4) -> int:
    """Return how many decimals show `value` with `digits` significant digits; none for larger numbers."""
    return 0 if value == 0 else min(6, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def quantity(interval: Interval | None, kind: str = "plain") -> str:
    """Return "mean ± half width unit"; kind: plain, count (k, M, G, T), milliseconds (of s), megabytes, percent."""
    if interval is None:
        return NOTHING
    if not math.isfinite(interval.mean):
        return OUT_OF_RANGE
    scale, unit = _scale(abs(interval.mean), kind)
    places = decimals(interval.mean / scale)
    if 0 < interval.half_width < math.inf:
        places = min(places, decimals(interval.half_width / scale, 2))
    text = f"{interval.mean / scale:.{places}f}"
    if 0 < interval.half_width < math.inf:
        text += f" ± {interval.half_width / scale:.{places}f}"
    return f"{text} {unit}".strip()


def difference(interval: Interval) -> str:
    """Return a signed difference with its interval, "-0.42 [-0.61, -0.23]"; without interval for one seed."""
    if not math.isfinite(interval.mean):
        return OUT_OF_RANGE
    places = decimals(interval.mean, 3)
    if math.isinf(interval.half_width):
        return f"{interval.mean:+.{places}f}"
    return f"{interval.mean:+.{places}f} [{interval.low:+.{places}f}, {interval.high:+.{places}f}]"


def ratio(interval: Interval) -> str:
    """Return a ratio with its interval, "0.71 [0.69, 0.73]"; without interval for one seed."""
    if not math.isfinite(interval.mean):
        return OUT_OF_RANGE
    if math.isinf(interval.half_width):
        return f"{interval.mean:.2f}"
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def share(value: float | None) -> str:
    """Return a share as a percentage; "all" for None, the dense model."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        return str(value)  # what no run of this suite writes is shown as it is
    return "all" if value is None else f"{100.0 * value:.4g}%"


def missed(target: float | None, left: float | None) -> bool:
    """Return True when a size was missed: then the share that is really left is shown next to the one asked for."""
    return target is not None and left is not None and abs(left - target) > _MISSED


def flat(settings: Mapping[str, Any]) -> str:
    """Return nested settings on one line, by name: "batch_size 16, steps 200"."""
    return ", ".join(
        f"{key} {flat(item) if isinstance(item, Mapping) else item}" for key, item in sorted(settings.items())
    )


def _scale(value: float, kind: str) -> tuple[float, str]:
    if kind == "count":
        return next(((scale, prefix) for scale, prefix in _PREFIXES if value >= scale), (1.0, ""))
    return _FIXED.get(kind, (1.0, ""))
