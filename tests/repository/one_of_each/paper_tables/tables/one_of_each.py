"""A table: the runs of an experiment."""

import pandas as pd

from paper_tables.analysis.cells import compare, measured, provenance
from paper_tables.item import Table
from paper_tables.methods import label


def build(records):
    return pd.DataFrame(
        [{"Method": label(cell.method), **measured(cell, ("perplexity",)), **provenance(cell)}
         for cell in compare(records).cells]
    )  # fmt: skip


ITEM = Table("one_of_each", "One of each", "What is new.", ("one_of_each",), build)
