"""Each claim compared with what was measured, with a verdict; the page that a reader in a hurry should see."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.formats import NOTHING
from paper_tables.analysis.odd_records import sound
from paper_tables.claims.multiplicity import corrected
from paper_tables.claims.published import meanings
from paper_tables.claims.statements import claims
from paper_tables.claims.verdicts import Claim, Verdict, needs
from paper_tables.item import RECORDS, Table
from results import RunRecord


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per claim, those that were not run too; mechanical ones, which are no verdicts, last."""
    rows = sorted(judged(records), key=lambda pair: pair[0].mechanical)
    return pd.DataFrame([_row(claim, verdict) for claim, verdict in rows])


def judged(records: Sequence[RunRecord], tier: str | None = None) -> list[tuple[Claim, Verdict]]:
    """Return every claim with its verdict from the finished `records` of one tier, theirs unless it is named.

    With neither there is no tier that a command could name. Verdicts stand after Holm's correction.
    """
    own = tier or (records[0].tier if records else None)
    judgeable = sound(records)
    return corrected(
        [(claim, needs("records") if own is None else claim.verdict(judgeable, own)) for claim in claims()]
    )


def _row(claim: Claim, verdict: Verdict) -> dict[str, str]:
    return {
        "Claim": claim.statement,
        "Published": claim.published,
        "Measured": verdict.measured or NOTHING,
        "Controls": "; ".join(verdict.control_lines) or NOTHING,
        "Seeds": str(verdict.n or NOTHING),
        "Verdict": verdict.text,
        "Part": claim.part or NOTHING,
        "Source": claim.source,
        RECORDS: " ".join(verdict.all_records),
    }


ITEM = Table(
    name="claims",
    title="Claims and verdicts",
    caption="Decided by 95% intervals of differences or ratios paired by seed, three seeds at least, where the p-value "
    "stays below 0.05 after Holm's correction over the claims of an experiment (p of how many). Losses in nats per "
    "token; within ±0.01 nats, or a tenth of a published effect, is no difference. Detectable: smallest difference "
    "that as many seeds detect, two-sided 5%, power 80%. Measured: follows from the size alone, and is no verdict on "
    f"the paper. Tags: {meanings(('A', 'S', 'R', 'I'))}.",
    experiments=(),
    build=build,
    place=1,
)
