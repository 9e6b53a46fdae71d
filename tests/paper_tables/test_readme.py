"""The tables of the pages are those of the committed records, and a wrong marker is told."""

import re
from pathlib import Path

import pytest

from paper_tables.report.readme import COLUMNS, README, filled, pages
from results import Store

BLOCK = re.compile(r"<!-- records: \w+/(\w+) -->\n\|(.*)\|\n")


@pytest.mark.parametrize("page", pages(README.parent), ids=lambda page: page.parent.name)
def test_pages_hold_what_the_records_say(page: Path):
    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python -m paper_tables --tier cpu --readme"


def test_every_table_is_on_a_page_with_all_of_its_columns():
    """A column that was renamed in its table would vanish from the page unnoticed."""
    text = "".join(page.read_text(encoding="utf-8") for page in pages(README.parent))
    shown = {name: tuple(cell.strip() for cell in header.split("|")) for name, header in BLOCK.findall(text)}
    assert shown == COLUMNS


def test_headlines_are_the_claims_in_short():
    block = README.read_text(encoding="utf-8").partition("<!-- records: cpu/headlines -->\n")[2]
    rows = block.partition("<!-- end -->")[0].splitlines()[2:]
    claims = pages(README.parent)[1].read_text(encoding="utf-8").partition("<!-- records: cpu/claims -->\n")[2]
    for short, full in zip(rows, claims.splitlines()[2:], strict=False):
        claim, published, measured, verdict = (cell.strip() for cell in short.strip("|").split("|"))
        whole = [cell.strip() for cell in full.strip("|").split("|")]
        assert (claim, published) == tuple(whole[:2])
        assert whole[2].startswith(measured) and ";" not in measured
        assert whole[-1].startswith(verdict) and "(" not in verdict
    assert len(rows) == claims.partition("<!-- end -->")[0].count("\n") - 2 > 0


def test_empty_store_says_how_to_run_and_wrong_names_are_refused(tmp_path):
    text = "a\n<!-- records: cpu/controls -->\nold\n<!-- end -->\nb\n"
    again = filled(text, Store(tmp_path))
    assert "Not run yet: `python -m benchmarks reproduce --tier cpu`" in again and "old" not in again
    assert again.startswith("a\n") and again.endswith("<!-- end -->\nb\n")
    with pytest.raises(ValueError, match="no table 'nothing'"):
        filled(text.replace("controls", "nothing"), Store(tmp_path))
