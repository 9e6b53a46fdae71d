"""Judges of the claims about GPT-2 from scratch: one size against one dense model, on the model of the claim."""

from __future__ import annotations

from collections.abc import Sequence

from paper_tables.analysis.cells import by_model, compare
from paper_tables.analysis.comparability import unequal
from paper_tables.analysis.formats import difference
from paper_tables.analysis.intervals import paired_difference
from paper_tables.claims.published import PublishedNumber
from paper_tables.claims.verdicts import Judge, Verdict, decide, needs
from results import RunRecord

EXPERIMENT = "gpt2_pretraining"
SHARE = {1.6: 0.625, 2.2: 0.4545}
"""Share of all parameters that is kept, by how many times smaller the model gets."""


def smaller_beats(other: str, times: float, model: str, number: PublishedNumber | None = None) -> Judge:
    """Return the judge of "EcoSpa, so many times smaller, has a lower perplexity than `other`".

    Args:
        other: "dense", "dense_twice_steps" or "small_dense".
        times: 1.6 or 2.2.
        model: name of the model of the claim; tiers below the paper's have one model of another name, which stands in.
        number: the difference that was claimed; None where only its direction is.
    """

    def judge(records: Sequence[RunRecord], tier: str) -> Verdict:
        models = by_model([record for record in records if record.experiment == EXPERIMENT])
        command = f"python -m benchmarks run {EXPERIMENT} --tier {tier}"
        chosen = models.get(model, []) if tier == "paper" else [record for own in models.values() for record in own]
        comparison = compare(chosen)
        ours, theirs = comparison.get("ecospa", SHARE[times]), comparison.get(other, SHARE[times])
        if ours is None or ours.target != SHARE[times] or theirs is None:
            return needs(command)
        if other_training := unequal(ours, theirs):
            return needs(f"runs of equal training, not {other_training}: {command}")
        effect = paired_difference(ours.values("perplexity"), theirs.values("perplexity"))
        if effect is None:
            return needs(f"the same seeds of both methods: {command}")
        published = None if number is None else number.value
        kind, detail = decide(effect, 0.0, full_scale=tier == "paper", published=published)
        return Verdict(kind, detail, f"perplexity {difference(effect)}", effect.n, ours.ids + theirs.ids)

    return judge
