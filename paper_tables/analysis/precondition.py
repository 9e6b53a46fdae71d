"""Precondition of every comparison from scratch: the dense model is better than a small dense one at equal steps.

Where size does not matter yet, nothing about shrinking can be decided: whatever is small or becomes small early looks
good, and no way of choosing what to remove can be told from another.
"""

from __future__ import annotations

from paper_tables.analysis.cells import Comparison
from paper_tables.analysis.comparability import flaw, unequal
from paper_tables.analysis.formats import share
from paper_tables.analysis.losses import Gap, gap, nats
from paper_tables.analysis.training_length import tokens_per_parameter

SEEDS_NEEDED = 3


def unmet(comparison: Comparison, target: float) -> str:
    """Return the reason why comparisons at a target decide nothing; empty where dense is better than small dense.

    Args:
        comparison: cells of one model, data and protocol.
        target: share of the block parameters that is left.
    """
    whole, small = comparison.get("dense", None), comparison.get("small_dense", target)
    if whole is None or small is None or small.target != target:
        return f"no dense and small dense model at {share(target)} to show that size matters"
    if reason := unequal(whole, small) or flaw(whole, small):
        return f"dense and small dense model: {reason}"
    found = gap(whole, small)
    if found is None or found.nats.n < SEEDS_NEEDED:
        return f"dense minus small dense needs {SEEDS_NEEDED} seeds"
    return "" if found.nats.high < 0 else f"size does not matter yet: {size_effect(comparison, found)}"


def told(comparison: Comparison, target: float) -> str:
    """Return the line under a table that says whether size matters at a target; empty where nothing shows it."""
    whole, small = comparison.get("dense", None), comparison.get("small_dense", target)
    found = None if whole is None or small is None or small.target != target else gap(whole, small)
    if found is None:
        return ""
    reading = "comparisons at this size count" if not unmet(comparison, target) else "nothing is decided at this size"
    return f"At {share(target)}: {size_effect(comparison, found)}; {reading}."


def size_effect(comparison: Comparison, found: Gap) -> str:
    """Return the effect of size with the length of the training, as printed."""
    tokens = tokens_per_parameter(comparison.records)
    length = "" if tokens is None else f", {tokens:.3g} tokens per block parameter"
    return f"dense minus small dense {nats(found.nats)} nats{length}"
