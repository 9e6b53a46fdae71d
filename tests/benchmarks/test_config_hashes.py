"""Every cell of every tier keeps its hash: a record whose cell has another one belongs to nobody any more.

Whoever changes an experiment on purpose writes the file anew: `python -m tests.benchmarks.test_config_hashes`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from benchmarks import registry
from benchmarks.experiment import TIERS, MethodRef

EXPECTED = Path(__file__).with_name("config_hashes.json")


def digests(name: str) -> dict[str, dict[str, int | str]]:
    """Tier -> number of cells and SHA-256 of their sorted hashes, of one experiment."""
    experiment = registry.experiment(name)
    methods = tuple(MethodRef(method) for method in experiment.methods)
    found: dict[str, dict[str, int | str]] = {}
    for tier in TIERS:
        if tier in experiment.tiers:
            hashes = sorted(cell.config_hash for cell in experiment.cells(tier, methods))
            found[tier] = {"cells": len(hashes), "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest()}
    return found


@pytest.mark.parametrize("name", list(registry.experiments()))
def test_no_cell_changes_its_hash(name: str) -> None:
    assert digests(name) == json.loads(EXPECTED.read_text())[name]


def test_no_experiment_is_lost() -> None:
    assert set(registry.experiments()) == set(json.loads(EXPECTED.read_text()))


if __name__ == "__main__":
    made = {name: digests(name) for name in registry.experiments()}
    EXPECTED.write_text(json.dumps(made, indent=1) + "\n")
