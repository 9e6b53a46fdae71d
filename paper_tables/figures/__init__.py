"""One figure = one file; each defines ITEM, a `paper_tables.item.Plot`."""
