"""One table = one file; each defines ITEM, a `paper_tables.item.Table`."""
