"""Collects the ratios of the micro-benchmarks and shows them beside the last committed ones.

`tox run -e bench` prints the table and writes it to .benchmarks/ratios.md; `tox run -e bench -- --keep-ratios REMARK`
makes its ratios the committed ones (results/bench.json and results/bench.md), if no case failed.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest

from benchmarks.execution import provenance
from benchmarks.timing.interleaved import ratio
from tests.bench import ratio_table
from tests.bench.ratio_table import Ratio, Run

RATIOS = pytest.StashKey[list[Ratio]]()
Tell = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep-ratios", metavar="REMARK", help="commit this run's ratios to results/; says what else the machine did"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS] = []
    if config.getoption("keep_ratios", None) is not None and config.getoption("keyword"):
        raise pytest.UsageError("--keep-ratios replaces all committed ratios; leave -k out")


@pytest.fixture
def tell(request: pytest.FixtureRequest, benchmark) -> Tell:
    """Keep a ratio for the table and hold it to its limit."""

    def told(
        name: str,
        own: Sequence[float],
        reference: Sequence[float],
        limit: float,
        promised: float | None = None,
        per: float = 1.0,
    ) -> None:
        """Median over rounds of own / reference, divided by `per`, such as a ratio of operations."""
        value = ratio(own, reference) / per
        request.config.stash[RATIOS].append(Ratio(name, round(value, 5), limit, promised, len(own)))
        benchmark.extra_info[name] = round(value, 5)
        assert value <= limit, f"{name} is {value:.4f}, the limit is {limit}"

    return told


def pytest_terminal_summary(terminalreporter, exitstatus: int, config: pytest.Config) -> None:
    found = config.stash.get(RATIOS, [])
    if not found:
        return
    run, last = Run(_origin(config), tuple(found)), ratio_table.read(ratio_table.COMMITTED)
    table = ratio_table.markdown(run, last)
    terminalreporter.section("ratios of this run beside the last committed ones")
    terminalreporter.write(table)
    left = config.rootpath / ".benchmarks" / "ratios.md"
    left.parent.mkdir(exist_ok=True)
    left.write_text(table, encoding="utf-8")
    if config.getoption("keep_ratios") is None:
        return
    if exitstatus != 0:
        terminalreporter.write_line("a case failed; the committed ratios stay", red=True)
        return
    ratio_table.write(run, ratio_table.COMMITTED)
    ratio_table.COMMITTED.with_suffix(".md").write_text(table, encoding="utf-8")
    terminalreporter.write_line(f"kept in {ratio_table.COMMITTED.relative_to(config.rootpath)}")


def _origin(config: pytest.Config) -> dict[str, object]:
    """Commit, time, machine, its load, and versions."""
    import torch

    commit, dirty = provenance.commit()
    versions = provenance.versions()
    for name in ("timm", "torch-pruning", "pytest-benchmark"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit,
        "dirty": dirty,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": provenance.machine("cpu", torch.get_num_threads()),
        "load": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "versions": versions,
        "remark": config.getoption("keep_ratios") or "",
    }
