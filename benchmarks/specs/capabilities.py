"""Settings of what two libraries are asked to do with one model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.experiment import MethodRef
from benchmarks.specs.synthetic import ModelShape

TARGET = 0.5


HEADS = ("bert", "vit", "llama")
"""Models whose heads both sides can remove, so that the time of it can be compared."""


@dataclass(frozen=True)
class PeerSettings:
    """All that decides what is found, but the seed.

    Attributes:
        method: the side.
        model: small, for the capabilities.
        timed: larger, for the time of a cut; None where it is not taken.
        turns: of the two sides.
        limit: processor seconds after which a cut counts as one that does not end.
    """

    procedure: ClassVar[str] = "library_comparison"

    method: MethodRef
    model: ModelShape
    timed: ModelShape | None
    turns: int
    limit: float
    target: float = TARGET

    def to_config(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        timed = None if self.timed is None else dataclasses.asdict(self.timed)
        return {
            "method_config": {"timed": timed, "turns": self.turns, "limit": self.limit},
            "target": self.target,
            "model": dataclasses.asdict(self.model),
            "data": {"source": "random numbers"},
            "protocol": {},
        }
