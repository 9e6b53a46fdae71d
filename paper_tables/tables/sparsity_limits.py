"""Width limits of each part of a trained model: its break points, and the curve that they are read from."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import compare, protocol_notes, provenance
from paper_tables.analysis.formats import NOTHING, quantity, share
from paper_tables.analysis.intervals import Interval
from paper_tables.analysis.width_sensitivity import PARTS, STATES, Part, parts
from paper_tables.item import Table
from results import RunRecord

SHOWN = (0.9, 0.7, 0.5, 0.3, 0.1)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per part and state."""
    return pd.DataFrame([_row(name, part, state) for name, part in parts(records).items() for state in STATES])


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the margin and the dense model's perplexity, then the protocol."""
    chosen = compare(records)
    margins = {record.payload["margin"] for record in chosen.records if "margin" in record.payload}
    lines = [f"Broken: perplexity more than {share(margin)} above the dense model's." for margin in sorted(margins)]
    for metric, text in (("perplexity_dense", "as it is"), ("perplexity_dense_recovered", "after recovery steps")):
        found = next((cell.interval(metric) for cell in chosen.cells if cell.interval(metric) is not None), None)
        if found is not None:
            lines.append(f"Perplexity of the dense model {text}: {quantity(found)}.")
    return (*lines, *protocol_notes(records))


def _row(name: str, part: Part, state: str) -> dict[str, str]:
    curve = part.curves[state]
    return {
        "Part": PARTS.get(name, name),
        "Measured": STATES[state],
        "Breaks at width": _break_point(part, state),
        **{f"Loss at {share(width)}": _excess(curve.get(width)) for width in SHOWN},
        "Blocks left at 50%": share(round(part.block_shares[0.5], 3)) if 0.5 in part.block_shares else NOTHING,
        **provenance(part.cell),
    }


def _break_point(part: Part, state: str) -> str:
    """Return the width, or that it is below the smallest measured one, for all seeds or for some."""
    unbroken, smallest = part.unbroken[state], min(part.curves[state])
    found = part.breaks.get(state)
    if found is None:
        return f"below {share(smallest)}"
    text = quantity(Interval(100 * found.mean, 100 * found.half_width, found.n)) + "%"
    return f"{text}; below {share(smallest)} in {unbroken} of {found.n + unbroken}" if unbroken else text


def _excess(ratio: Interval | None) -> str:
    """Return by how much perplexity exceeds the dense model's."""
    if ratio is None:
        return NOTHING
    return quantity(Interval(100 * (ratio.mean - 1), 100 * ratio.half_width, ratio.n)) + "%"


ITEM = Table(
    name="sparsity_limits",
    title="How narrow each part may become",
    caption="One part of a trained model is cut, all else stays whole. Breaks at width: share of its width at which "
    "perplexity passes the margin. Loss: by how much perplexity exceeds that of the dense model. Mean over seeds ± "
    "half the width of the 95% interval.",
    experiments=("sparsity_limits",),
    build=build,
    notes=notes,
    place=6,
)
