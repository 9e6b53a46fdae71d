"""Published numbers for the settings of the paper, for comparison with records of the paper tier."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.claims.published import meanings, numbers
from paper_tables.item import Table
from results import RunRecord


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per published number; nothing measured stands here, whatever `records` hold."""
    return pd.DataFrame(
        [
            {
                "Setting": number.setting,
                "Method": number.method,
                "Metric": number.metric,
                "Published": f"{number.value:g}",
                "Unit": number.unit,
                "Source": number.reference,
            }
            for number in numbers()
        ]
    )


ITEM = Table(
    name="published_numbers",
    title="Published numbers",
    caption="Printed in the literature, not measured here. "
    f"Tags: {meanings({number.tag for number in numbers()})}. "
    "Full-rank baselines tuned with more care are much stronger: compare with both.",
    experiments=(),
    build=build,
    place=90,
)
