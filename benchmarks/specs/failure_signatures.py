"""Settings of failures on purpose: a trained model that is shrunk badly while it is watched, and irregular widths."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.specs.pretrained import TrainedModel
from benchmarks.specs.synthetic import ModelShape
from benchmarks.specs.training import ShrinkSpec, TrainingSpec, as_config


@dataclass(frozen=True)
class WatchSpec:
    """Settings of ecospa.LossWatch, in steps, and the sequences that a ranking is checked on."""

    window: int
    patience: int
    sequences: int


@dataclass(frozen=True)
class StressSettings:
    """All that decides the outcome but the seed, which trains the model and orders the text after it.

    `importance` is a name of `benchmarks.training.broken_importance`, or None for EcoSpa's own.
    """

    procedure: ClassVar[str] = "failure_signatures"

    importance: str | None
    shrink: ShrinkSpec
    watch: WatchSpec
    model: TrainedModel
    data: DataSpec
    protocol: ProtocolSpec
    training: TrainingSpec

    @property
    def target(self) -> float | None:
        """Share of the block parameters kept."""
        return self.shrink.target_size

    def to_config(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        parts = {name: as_config(getattr(self, name)) for name in ("model", "data", "protocol", "training")}
        method = {
            "importance": self.importance, **dataclasses.asdict(self.shrink), "watch": dataclasses.asdict(self.watch),
        }  # fmt: skip
        return {"method_config": method, "target": self.target, **parts}


@dataclass(frozen=True)
class WidthSettings:
    """All that decides what is timed but the seed of weights and importances.

    `multiples` are those that the widths of one size are rounded to; every model is timed in each of `precisions`.
    """

    procedure: ClassVar[str] = "irregular_widths"

    target: float
    multiples: tuple[int, ...]
    model: ModelShape
    batch: int
    turns: int
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")

    def to_config(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        return {
            "method_config": {"multiples": list(self.multiples)},
            "target": self.target,
            "model": dataclasses.asdict(self.model),
            "data": {"source": "random numbers"},
            "protocol": {"batch": self.batch, "turns": self.turns, "precisions": list(self.precisions)},
        }
