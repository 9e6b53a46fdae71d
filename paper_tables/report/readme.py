"""The numbers of the pages: their tables are filled from records between two markers, and a test compares them.

A block `<!-- records: cpu/controls -->` ... `<!-- end -->` holds the table `controls` of tier cpu, and only its most
telling columns; the notes of a table (texts that a model wrote, protocol) follow it where WITH_NOTES says so. The block
`headlines` is the table `claims` in short: what stands behind a semicolon or in brackets at the end is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from paper_tables.analysis.odd_records import legible, without_odd
from paper_tables.item import Table, records_of
from paper_tables.methods import described_by
from paper_tables.registry import items
from paper_tables.report.writers import markdown_rows
from results import Store
from results.store import Snapshot

README = Path(__file__).parents[2] / "README.md"
PAGES = ("README.md", "paper_tables/README.md")
"""Pages with such blocks, from the folder of the README."""
COLUMNS = {
    "headlines": ("Claim", "Published", "Measured", "Verdict"),
    "claims": ("Claim", "Published", "Measured", "Controls", "Verdict"),
    "coupled_vs_uncoupled": (
        *("Method", "Blocks kept", "Tokens/parameter", "Perplexity", "Bits/byte", "Stored in blocks"),
        *("Non-zero in blocks", "Run FLOPs", "Final step / dense", "Seeds"),
    ),
    "controls": (
        *("Blocks kept", "EcoSpa against", "Part", "Nats per token", "Perplexity", "Detectable", "Holm", "Reading"),
        "Seeds",
    ),
    "gpt2_pretraining": (
        *("Method", "Parameters kept", "Tokens/parameter", "Perplexity", "Stored parameters", "Training holds, peak"),
        *("Training holds, end", "Run FLOPs", "Final step / dense", "Seeds"),
    ),
    "llama_pretraining": (
        *(
            "Model",
            "Method",
            "Blocks kept",
            "Tokens/parameter",
            "Perplexity",
            "Stored parameters",
            "Training holds, peak",
        ),
        *("Training holds, end", "Run FLOPs", "Final step / dense", "Seeds"),
    ),
    "compare_perplexity": ("Model", "Method", "Removes", "100%", "80%", "70%", "60%", "50%", "Seeds"),
    "time_over_flops": ("Phase", "Mode", "Model", "Method", "70%", "50%", "30%", "Aim", "Missed at", "Seeds", "Device"),
    "training_memory": (
        *("Model", "Method", "Blocks kept", "Budget", "Dense peak", "Peak / dense", "Average / dense"),
        *("At the end / dense", "Seeds"),
    ),
    "pretrained_shrink": (
        *("Model", "Blocks kept", "Parameters", "Perplexity after the cut", "Perplexity after recovery", "Seeds"),
    ),
}
WITH_NOTES = ("pretrained_shrink",)
ALIASES = {"headlines": "claims"}
ROWS = {"claims": ("Source", "abstract"), "gpt2_pretraining": ("Model", "layers")}
"""Of which tables only rows with a text in a column are shown: the claims of the abstract, what was measured here."""
_DETAIL = re.compile(r";.*| \([^()]*\)$")
_BLOCK = re.compile(r"(<!-- records: (\w+)/(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, store: Store | None = None) -> str:
    """Return a page with every block filled from the records.

    Args:
        text: the page.
        store: records; those of the checkout by default.

    Raises:
        ValueError: a block names a table that does not exist or has no columns here.
    """
    tables = {item.name: item for item in items() if isinstance(item, Table)}
    chosen = Snapshot((store or Store()).folder)

    def block(match: re.Match[str]) -> str:
        opening, tier, name, closing = match.groups()
        table = ALIASES.get(name, name)
        if table not in tables or name not in COLUMNS:
            raise ValueError(f"page: no table {name!r}; choose one of {', '.join(COLUMNS)}")
        return f"{opening}{_table(tables[table], name, tier, chosen)}{closing}"

    with described_by(chosen.readable(status=None)[0]):
        return _BLOCK.sub(block, text)


def pages(root: Path) -> list[Path]:
    """Return the pages with blocks that exist below a folder."""
    return [root / page for page in PAGES if (root / page).is_file()]


def _table(item: Table, name: str, tier: str, store: Store) -> str:
    records = [legible(record) for record in store.readable(tier=tier)[0]]
    records = records_of(item, records)
    table, left_out = without_odd(item.build, records)
    if table is None or table.empty:
        return f"Not run yet: `python -m benchmarks reproduce --tier {tier}`\n"
    if item.name in ROWS:
        column, text = ROWS[item.name]
        table = table[table[column].str.contains(text, regex=False)]
    chosen = table[[column for column in COLUMNS[name] if column in table]]
    if name in ALIASES:
        chosen = chosen.map(lambda cell: _DETAIL.sub("", cell))
    spoiled = {record.id for record, _ in left_out}
    told = item.notes([record for record in records if record.id not in spoiled]) if item.name in WITH_NOTES else ()
    notes = "".join(f"\n{note}\n" for note in told)
    return f"{markdown_rows(chosen)}\n{notes}"
