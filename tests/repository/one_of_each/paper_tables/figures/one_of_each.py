"""A figure: the runs of an experiment."""

from paper_tables.analysis.cells import compare
from paper_tables.drawing.style import color, marker, panels
from paper_tables.item import Plot


def build(records):
    cells = compare(records).cells
    if not cells:
        return None
    figure, (panel,) = panels(1)
    for cell in cells:
        panel.plot(cell.interval("widest_pair").mean, cell.interval("perplexity").mean, marker(cell.method),
                   color=color(cell.method))  # fmt: skip
    return figure


ITEM = Plot("one_of_each", "One of each", "What is new.", ("one_of_each",), build)
