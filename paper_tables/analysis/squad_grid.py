"""Records of one method at many pairs of K and theta, as cells that may be compared: for the table, figure and claim.

Method and target name a cell elsewhere; here K and theta do, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from paper_tables.analysis.cells import Cell, compare, settled
from results import RunRecord

EXPERIMENT = "bert_squad"
PAPER = (0.30, 0.90)
"""The paper's own K and theta."""
METHOD = "ecospa_own_pace"
"""At its own pace K and theta decide how fast the model shrinks; on a size curve they hardly decide anything."""
SAME_SIZE = 0.02

Pair = tuple[float, float]


def surface(records: Sequence[RunRecord]) -> dict[Pair, Cell]:
    """Return the cells of the method at its own pace by (K, theta), among the records that belong together."""
    groups: defaultdict[Pair, list[RunRecord]] = defaultdict(list)
    for record in settled(records):
        if (pair := _pair(record)) is not None:
            groups[pair].append(record)
    return {pair: compare(groups[pair]).cells[0] for pair in sorted(groups)}


def one_pair(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records with one K and theta of the method at its own pace alone, for figures that have one line each.

    The paper's own pair, or of those that were run the nearest one to it; other experiments are left as they are.
    """
    pair = shown_pair(records)
    return [record for record in records if pair is None or _pair(record) in (None, pair)]


def shown_pair(records: Sequence[RunRecord]) -> Pair | None:
    """Return the K and theta that `one_pair` keeps; None where there are not several to choose from."""
    pairs = {found for record in records if (found := _pair(record)) is not None}
    return min(pairs, key=lambda pair: (_distance(pair), pair)) if len(pairs) > 1 else None


def _pair(record: RunRecord) -> Pair | None:
    found = record.config.get("method_config") or {}
    if (record.experiment, record.method) != (EXPERIMENT, METHOD) or "importance_threshold" not in found:
        return None
    return float(found["top_k"]), float(found["importance_threshold"])


def _distance(pair: Pair) -> float:
    return abs(pair[0] - PAPER[0]) + abs(pair[1] - PAPER[1])


def others(records: Sequence[RunRecord]) -> list[Cell]:
    """Return the cells of all other methods, in table order."""
    return list(compare([record for record in settled(records) if record.method != METHOD]).cells)
