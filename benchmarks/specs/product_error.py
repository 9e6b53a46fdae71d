"""Settings of the error that index removal makes in a matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.training import TrainingSpec, as_config


@dataclass(frozen=True)
class MismatchSettings:
    """Sizes of the synthetic matrices, how often they are drawn, and how the trained ones come about."""

    procedure: ClassVar[str] = "product_error"

    rows: int
    inner: int
    columns: int
    draws: int
    shares: tuple[float, ...]
    model: ModelSpec
    data: DataSpec
    protocol: ProtocolSpec
    training: TrainingSpec

    def to_config(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        raw = as_config(self)
        matrices = {name: raw.pop(name) for name in ("rows", "inner", "columns", "draws", "shares")}
        return {"method_config": {**matrices, "shares": list(self.shares)}, "target": None, **raw}
