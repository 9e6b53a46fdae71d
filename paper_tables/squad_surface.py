"""Records of one method at many pairs of K and theta, as cells that may be compared: for the table, figure and claim.

Method and target name a cell elsewhere; here K and theta do, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from paper_tables.cells import Cell, compare, settled
from paper_tables.formats import difference
from paper_tables.intervals import paired_difference
from paper_tables.verdicts import Judge, Verdict, decide, needs
from results import RunRecord

EXPERIMENT = "bert_squad"
PAPER = (0.30, 0.90)
"""The paper's own K and theta."""
SURFACES = ("ecospa", "ecospa_own_pace")

Pair = tuple[float, float]


def surface(records: Sequence[RunRecord], method: str) -> dict[Pair, Cell]:
    """Return the cells of a method by (K, theta), among the records that belong together."""
    groups: defaultdict[Pair, list[RunRecord]] = defaultdict(list)
    for record in settled(records):
        found = record.config.get("method_config") or {}
        if record.method == method and {"top_k", "importance_threshold"} <= found.keys():
            groups[float(found["top_k"]), float(found["importance_threshold"])].append(record)
    return {pair: compare(groups[pair]).cells[0] for pair in sorted(groups)}


def others(records: Sequence[RunRecord]) -> list[Cell]:
    """Return the cells of methods that have neither K nor theta, in table order."""
    return list(compare([record for record in settled(records) if record.method not in SURFACES]).cells)


def smaller_k_is_better(theta: float = PAPER[1]) -> Judge:
    """Return the judge of "when weights are fine-tuned, the smallest K gives a higher F1 than the largest"."""

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        started = [r for r in records if r.experiment == EXPERIMENT and (r.config.get("model") or {}).get("weights")]
        cells = {share: cell for (share, own), cell in surface(started, "ecospa").items() if own == theta}
        if len(cells) < 2:
            return needs(f"trained weights: python -m benchmarks run {EXPERIMENT} --tier {tier} --weights DIR")
        small, large = cells[min(cells)], cells[max(cells)]
        effect = paired_difference(small.values("f1"), large.values("f1"))
        if effect is None:
            return needs("the same seeds of both")
        kind, detail = decide(effect.mirrored(), 0.0, full_scale=False)
        return Verdict(kind, detail, f"F1 {difference(effect)}", effect.n, small.ids + large.ids)

    return judge
