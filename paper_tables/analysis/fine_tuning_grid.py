"""Records of one method at many pairs of K and theta in fine-tuning, as cells that may be compared.

For tables, figures and claims of SQuAD and SST-2. Method and target name a cell elsewhere; here K and theta do, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from paper_tables.analysis.cells import Cell, compare, settled
from paper_tables.analysis.formats import quantity
from paper_tables.analysis.intervals import Interval, paired_difference
from results import RunRecord

PAPER = (0.30, 0.90)
"""The paper's own K and theta."""
METHOD = "ecospa_own_pace"
"""At its own pace K and theta decide how fast the model shrinks; on a size curve they hardly decide anything."""
SAME_SIZE = 0.02
ANSWERING = 1 / 3
"""Share of the way from a trivial answer to 100% from which a dense model counts as answering."""

Pair = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """An experiment with K and theta: the metric it is judged by, in percent, and what an answer gets that is trivial.

    Attributes:
        experiment: its name.
        task: for people.
        metric: of the records.
        named: what people call it.
        trivial: metric of an answer that reads nothing.
        answer: what that answer is.
    """

    experiment: str
    task: str
    metric: str
    named: str
    trivial: str
    answer: str


SQUAD = Grid("bert_squad", "SQuAD", "f1", "F1", "first_words_f1", "the first words of the context")
SST2 = Grid("bert_sst2", "SST-2", "score", "accuracy", "majority_score", "always the commonest label")
GRIDS = (SQUAD, SST2)


def surface(records: Sequence[RunRecord]) -> dict[Pair, Cell]:
    """Return the cells of the method at its own pace by (K, theta), among the records that belong together."""
    groups: defaultdict[Pair, list[RunRecord]] = defaultdict(list)
    for record in settled(records):
        if (pair := _pair(record)) is not None:
            groups[pair].append(record)
    return {pair: compare(groups[pair]).cells[0] for pair in sorted(groups)}


def others(records: Sequence[RunRecord]) -> list[Cell]:
    """Return the cells of all other methods, in table order."""
    return list(compare([record for record in settled(records) if record.method != METHOD]).cells)


def dense_cell(records: Sequence[RunRecord]) -> Cell | None:
    """Return the cell of the dense model, the reference of all others."""
    return next((cell for cell in others(records) if cell.method == "dense"), None)


def minus_dense(cell: Cell, dense: Cell | None, grid: Grid) -> Interval | None:
    """Return points of the metric above the dense model, paired by seed; None without a dense model of these seeds."""
    return None if dense is None else paired_difference(cell.values(grid.metric), dense.values(grid.metric))


def unanswered(records: Sequence[RunRecord], grid: Grid) -> str:
    """Return the reason why a grid decides nothing: its dense model hardly beats a trivial answer; empty otherwise."""
    dense = dense_cell(records)
    found = None if dense is None else dense.interval(grid.metric)
    if dense is None or found is None:
        return "no dense model to show that the task is learnt"
    trivial = dense.interval(grid.trivial)
    floor = 0.0 if trivial is None else trivial.mean
    if found.mean >= floor + ANSWERING * (100 - floor):
        return ""
    return f"the dense model hardly answers: {grid.named} {quantity(found)}, {grid.answer} {quantity(trivial)}"


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
    mapped = record.experiment in {grid.experiment for grid in GRIDS} and record.method == METHOD
    if not mapped or "importance_threshold" not in found:
        return None
    return float(found["top_k"]), float(found["importance_threshold"])


def _distance(pair: Pair) -> float:
    return abs(pair[0] - PAPER[0]) + abs(pair[1] - PAPER[1])
