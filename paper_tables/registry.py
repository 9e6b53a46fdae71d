"""Finds the tables and plots: every module in `tables/` and `figures/` defines one `ITEM`; that is all the wiring."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from paper_tables.item import Item, Plot, Table

FOLDERS: dict[str, type[Item]] = {"paper_tables.tables": Table, "paper_tables.figures": Plot}
"""Package -> what its modules define; by name, so that no item has to be imported to import this."""


@cache
def items() -> tuple[Item, ...]:
    """Return all tables, then all plots, by place and name; TypeError or ValueError if a module defines no item."""
    found: list[Item] = []
    for folder, kind in FOLDERS.items():
        package = importlib.import_module(folder)
        for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
            item = getattr(importlib.import_module(f"{folder}.{module}"), "ITEM", None)
            if not isinstance(item, kind):
                raise TypeError(f"{folder}.{module} has ITEM = {item!r}; it must define a {kind.__name__}")
            if item.name != module:
                raise ValueError(f"{folder}.{module} has ITEM.name = {item.name!r}; name it like its file")
            found.append(item)
    return tuple(sorted(found, key=lambda item: (item.kind != "table", item.place, item.name)))
