"""Settings of the memory that training takes while a model shrinks."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.specs.synthetic import SpeedProtocol

METHODS = ("dense", "ecospa")


@dataclass(frozen=True)
class MemoryProtocol(SpeedProtocol):
    """Settings of measuring memory: `turns` optimizer steps; `budget` is a share of the dense peak, None: no limit."""

    budget: float | None = None
