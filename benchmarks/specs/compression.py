"""Settings of one-shot compression: a trained model, cut once by one method."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.experiment import MethodRef
from benchmarks.specs.language import DataSpec, ModelSpec, ProtocolSpec
from benchmarks.specs.training import TrainingSpec, as_config


@dataclass(frozen=True)
class CalibrationSpec:
    """Sequences that a method is given; their length is the protocol's."""

    sequences: int = 128
    batch_size: int = 8


@dataclass(frozen=True)
class CompareSettings:
    """All that decides the outcome of one compression, but the seed, which draws the calibration data.

    `architecture` and `training` say how the model comes about; both are None for one that others have trained.
    """

    procedure: ClassVar[str] = "compression"

    method: MethodRef
    target: float | None
    model: str
    architecture: ModelSpec | None
    training: TrainingSpec | None
    data: DataSpec
    protocol: ProtocolSpec
    calibration: CalibrationSpec
    width_multiple: int

    def to_config(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        method_config: dict[str, Any] = {"width_multiple": self.width_multiple}
        if self.method.location is not None:
            method_config["location"] = self.method.location
        architecture = {} if self.architecture is None else dataclasses.asdict(self.architecture)
        parts = {name: dataclasses.asdict(getattr(self, name)) for name in ("calibration", "data", "protocol")}
        trained = {} if self.training is None else {"training": as_config(self.training)}
        model = {"name": self.model, **architecture}
        return {"method_config": method_config, "target": self.target, "model": model, **parts, **trained}

    def command_words(self) -> list[str]:
        """Words behind `python -m benchmarks` that make runs of this cell alone."""
        sizes = [] if self.target is None else ["--sizes", f"{self.target:g}"]
        return ["compare", "--model", self.model, "--methods", self.method.location or self.method.name, *sizes]
