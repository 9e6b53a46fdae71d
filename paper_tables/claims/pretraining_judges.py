"""Judges of the claims about GPT-2 from scratch: one size against one dense model, on the model of the claim."""

from __future__ import annotations

from collections.abc import Sequence

from paper_tables.analysis.cells import Cell, Comparison, by_model, compare
from paper_tables.analysis.shared_cells import of_experiment
from paper_tables.claims.published import PublishedNumber
from paper_tables.claims.quality_judges import from_scratch
from paper_tables.claims.verdicts import Judge, Verdict, needs
from results import RunRecord

EXPERIMENT = "gpt2_pretraining"
SHARES = {1.6: (0.625, 0.5), 2.2: (0.4545, 0.3)}
"""Share that is kept, by how many times smaller the model gets: of all parameters, and of the blocks at tier cpu."""


def smaller_beats(other: str, times: float, model: str, number: PublishedNumber | None = None) -> Judge:
    """Return the judge of "EcoSpa, so many times smaller, has a lower loss than `other`".

    Args:
        other: "dense", "dense_twice_steps" or "small_dense".
        times: 1.6 or 2.2.
        model: name of the model of the claim; tiers below the paper's have one model of another name, which stands in.
        number: the difference in perplexity that was claimed; None where only its direction is.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        models = by_model(of_experiment(records, EXPERIMENT))
        command = f"python -m benchmarks run {EXPERIMENT} --tier {tier}"
        chosen = models.get(model, []) if tier == "paper" else [record for own in models.values() for record in own]
        comparison = compare(chosen)
        ours = _shrunk(comparison, times)
        theirs = None if ours is None else comparison.get(other, ours.target)
        if ours is None or theirs is None or theirs.target not in (None, ours.target):
            return needs(command)
        published = None if number is None else number.value
        full_scale = tier == "paper"
        return from_scratch(comparison, ours, theirs, command, EXPERIMENT, full_scale=full_scale, published=published)

    return judge


def _shrunk(comparison: Comparison, times: float) -> Cell | None:
    cells = (comparison.get("ecospa", share) for share in SHARES[times])
    return next((cell for cell in cells if cell is not None and cell.target in SHARES[times]), None)
