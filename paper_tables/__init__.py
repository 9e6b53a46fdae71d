"""Records become tables, plots and one report: each published number vs. the measured one, with a verdict.

Reads `results` and nothing else, never torch: whoever doubts a number can rebuild every page from the records on any
machine. A table or plot is one file in `tables/` or `figures/`, found by scanning.
"""

from paper_tables.registry import items
from paper_tables.report.render import render, terminal_table

__all__ = ["items", "render", "terminal_table"]
