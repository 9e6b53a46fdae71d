"""The tables of the README are those of the committed records, and a wrong marker is told."""

import pytest

from paper_tables.report.readme import README, filled
from results import Store


def test_readme_holds_what_the_records_say():
    text = README.read_text(encoding="utf-8")
    assert text.count("<!-- records: ") == 9
    assert filled(text) == text, "run: python -m paper_tables --tier cpu --readme"


def test_empty_store_says_how_to_run_and_wrong_names_are_refused(tmp_path):
    text = "a\n<!-- records: cpu/controls -->\nold\n<!-- end -->\nb\n"
    again = filled(text, Store(tmp_path))
    assert "Not run yet: `python -m benchmarks reproduce --tier cpu`" in again and "old" not in again
    assert again.startswith("a\n") and again.endswith("<!-- end -->\nb\n")
    with pytest.raises(ValueError, match="no table 'nothing'"):
        filled(text.replace("controls", "nothing"), Store(tmp_path))
