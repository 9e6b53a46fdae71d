"""Controls of a shrunk model's time besides the dense one: swapped classes alone, and both models without a mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.timing.interleaved import ratio
from results.record import Metric


def control_metrics(seconds: Mapping[str, Sequence[float]], saved: float, time: str) -> dict[str, Metric]:
    """Ratios to the controls that were interleaved with a dense and a shrunk model.

    Args:
        seconds: of every turn: "dense" and "shrunk", and "swapped", or "dense_plain" and "plain", or all three.
        saved: FLOPs of the shrunk model over those of the dense one.
        time: the quantity measured, as in the metrics' names, such as "latency".
    """
    dense, shrunk = seconds["dense"], seconds["shrunk"]
    turns, metrics = len(shrunk), dict[str, Metric]()
    if "swapped" in seconds:
        swapped = ratio(seconds["swapped"], dense)
        metrics[f"swapped_{time}_ratio"] = Metric(swapped, "swapped / dense", False, n=turns)
    if "plain" in seconds:
        dense_mode, shrunk_mode = ratio(dense, seconds["dense_plain"]), ratio(shrunk, seconds["plain"])
        without = ratio(seconds["plain"], seconds["dense_plain"]) / saved
        metrics |= {
            f"dense_mode_{time}_ratio": Metric(dense_mode, "mode / plain", False, n=turns),
            f"mode_{time}_ratio": Metric(shrunk_mode, "mode / plain", False, n=turns),
            f"plain_{time}_over_flops": Metric(without, "time / FLOPs", False),
        }
    return metrics
