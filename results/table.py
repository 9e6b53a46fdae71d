"""Records as one pandas table, a row per run, with the column names of MLflow's `search_runs`.

Tables of this project choose which records may be compared; here is everything, for whoever wants to choose otherwise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.record import RunRecord
from results.store import Store

if TYPE_CHECKING:
    import pandas as pd

FIELDS = (
    *("id", "experiment", "tier", "method", "seed", "status", "start", "seconds", "commit", "dirty", "config_hash"),
    *("data_fingerprint", "command", "error", "schema_version"),
)
NESTED = ("config", "device", "versions")


def frame(records: Store | Iterable[RunRecord] | None = None) -> pd.DataFrame:
    """Return one row per record: its fields, then `method_info.*`, `metrics.*`, `config.*`, `device.*`, `versions.*`.

    Values of metrics are numbers in the record's own unit, NaN where a run has none. Lists of a configuration are JSON
    text. Curves, plan history and payload stay in the records.

    Args:
        records: some records, or a store for all of it, failed runs too; the checkout's own store by default.

    Raises:
        ModuleNotFoundError: pandas is not installed.
        RecordError: a record of the store is damaged.
    """
    import pandas as pd

    chosen = Store() if records is None else records
    rows = [_row(record) for record in (chosen.records(status=None) if isinstance(chosen, Store) else chosen)]
    table = pd.DataFrame(rows, columns=None if rows else [*FIELDS])
    columns: list[str] = sorted(map(str, table.columns), key=_place)
    return table[columns]


def export(table: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a frame as .csv or .parquet, by the suffix; return the path.

    Raises:
        ValueError: another suffix.
    """
    target = Path(path)
    if target.suffix == ".csv":
        table.to_csv(target, index=False)
    elif target.suffix == ".parquet":
        table.apply(_of_one_type).to_parquet(target, index=False)
    else:
        raise ValueError(f"file is {target.name!r}; its name ends in .csv or .parquet")
    return target


def _row(record: RunRecord) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in FIELDS}
    if record.method_info is not None:
        row |= {f"method_info.{name}": value for name, value in vars(record.method_info).items()}
    row |= {f"metrics.{name}": metric.value for name, metric in record.metrics.items()}
    for part in NESTED:
        row |= _flat(part, getattr(record, part))
    return row


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {key: item for inner in value for key, item in _flat(f"{name}.{inner}", value[inner]).items()}
    return {name: json.dumps(value) if isinstance(value, list) else value}


def _place(column: str) -> tuple[int, str]:
    """Return the place of a column: fields in their order, then what is nested, part by part."""
    if column in FIELDS:
        return FIELDS.index(column), ""
    parts = ("method_info", "metrics", *NESTED)
    return len(FIELDS) + parts.index(column.partition(".")[0]), column


def _of_one_type(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column that parquet can hold: text where runs wrote values of several types."""
    kinds = {type(value) for value in column.dropna()}
    return column.map(str, na_action="ignore") if len(kinds) > 1 and not kinds <= {int, float} else column
