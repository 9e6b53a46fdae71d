"""The ratios of one run of the micro-benchmarks: as a table beside the last committed ones, and as a file to commit.

Only ratios are kept, each of two things that took turns in one process: seconds of one machine say nothing about
another. What the project promises and what today's code is held to are two numbers; where they differ, the table says
so instead of the promise being softened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "results"
COMMITTED = FOLDER / "bench.json"
HEADER = ("Ratio", "Now", "Fails above", "Promised at most", "Promise", "Last committed", "Now / last")
_NONE = "-"


@dataclass(frozen=True)
class Ratio:
    """One measured ratio, the smaller the better.

    Attributes:
        name: model and what is divided by what.
        value: median over turns.
        limit: the case fails above it; it guards against a regression.
        promised: what the project has set itself; None where it has promised nothing.
        turns: measurements behind the median.
    """

    name: str
    value: float
    limit: float
    promised: float | None
    turns: int

    @property
    def verdict(self) -> str:
        """Verdict on the promise: whether it holds."""
        if self.promised is None:
            return _NONE
        return "kept" if self.value <= self.promised else "missed"


@dataclass(frozen=True)
class Run:
    """All ratios of one run, and where they come from: commit, machine, versions, load, and a remark."""

    origin: Mapping[str, Any]
    ratios: tuple[Ratio, ...]


def read(path: Path) -> Run | None:
    """The committed run, or None where there is none yet.

    Raises:
        ValueError: the file is damaged; it names the file.
    """
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Run(raw["origin"], tuple(Ratio(**ratio) for ratio in raw["ratios"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no run of the benchmarks ({error!r}); restore it from git") from error


def write(run: Run, path: Path) -> None:
    """Write a run as JSON, one ratio per line."""
    lines = ",\n".join(f"  {json.dumps(asdict(ratio))}" for ratio in run.ratios)
    origin = json.dumps(run.origin, indent=1, sort_keys=True)
    path.write_text(f'{{\n"origin": {origin},\n"ratios": [\n{lines}\n]\n}}\n', encoding="utf-8")


def markdown(run: Run, last: Run | None) -> str:
    """The table of a run beside the last committed one, and where both come from.

    A ratio that only the committed run has keeps its row, so that a case that was lost or skipped is seen.
    """
    before = {} if last is None else {ratio.name: ratio for ratio in last.ratios}
    rows = [_row(ratio, before.get(ratio.name)) for ratio in run.ratios]
    lost = before.keys() - {ratio.name for ratio in run.ratios}
    rows += [(name, "not run", *[_NONE] * 3, _number(before[name].value), _NONE) for name in before if name in lost]
    missed = [ratio.name for ratio in run.ratios if ratio.verdict == "missed"]
    lines = [*_table(rows), "", f"Now: {_told(run)}", "", f"Last committed: {'none' if last is None else _told(last)}"]
    lines += ["", f"Promises missed: {len(missed)} of {sum(ratio.promised is not None for ratio in run.ratios)}."]
    return "\n".join(lines) + "\n"


def _row(ratio: Ratio, old: Ratio | None) -> tuple[str, ...]:
    promised = _NONE if ratio.promised is None else f"{ratio.promised:g}"
    compared = (_NONE, _NONE) if old is None else (_number(old.value), f"{ratio.value / old.value:.2f}")
    return (ratio.name, _number(ratio.value), f"{ratio.limit:g}", promised, ratio.verdict, *compared)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (HEADER, *rows)) for column in range(len(HEADER))]
    cells = [[value.ljust(width) for value, width in zip(row, widths, strict=True)] for row in (HEADER, *rows)]
    cells.insert(1, ["-" * width for width in widths])
    return [f"| {' | '.join(row)} |" for row in cells]


def _told(run: Run) -> str:
    return "; ".join(f"{name} {value}" for name, value in _flat(run.origin).items())


def _flat(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a run comes from, without nesting."""
    found: dict[str, Any] = {}
    for name, value in origin.items():
        found |= dict(value) if isinstance(value, Mapping) else {name: value}
    return found


def _number(value: float) -> str:
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}"
