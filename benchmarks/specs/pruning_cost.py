"""Settings of what compressing a model once costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.experiment import MethodRef

TARGET = 0.5


@dataclass(frozen=True)
class CostModel:
    """Sizes of a model; `length` in tokens, or pixels at a side of an image."""

    name: str
    layers: int
    width: int
    heads: int
    length: int
    vocabulary: int = 1024


@dataclass(frozen=True)
class CostSettings:
    """All that decides what is measured, but the seed."""

    procedure: ClassVar[str] = "pruning_cost"

    method: MethodRef
    target: float | None
    model: CostModel
    sequences: int
    batch_size: int
    turns: int

    def to_config(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        location = {} if self.method.location is None else {"location": self.method.location}
        numbers = {name: getattr(self, name) for name in ("sequences", "batch_size", "turns")}
        return {
            "method_config": {**numbers, **location},
            "target": self.target,
            "model": dataclasses.asdict(self.model),
            "data": {"source": "random numbers"},
            "protocol": {},
        }
