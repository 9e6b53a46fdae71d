"""Settings of cutting one part of a trained model to ever smaller widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.specs.pretrained import TrainedModel
from benchmarks.specs.training import TrainingSpec, as_config

KINDS = ("qk", "vo", "ffn")


DEPTHS = ("early", "middle", "late")


PARTS = (*KINDS, *DEPTHS)


@dataclass(frozen=True)
class LimitsSettings:
    """All that decides the outcome but the seed, which trains the model and orders the text of the recovery.

    `part` is one of PARTS; `widths` are shares of the width that is kept; `training` is the recovery after each cut.
    """

    procedure: ClassVar[str] = "width_sensitivity"

    part: str
    widths: tuple[float, ...]
    margin: float
    model: TrainedModel
    data: DataSpec
    protocol: ProtocolSpec
    training: TrainingSpec

    def to_config(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        raw = as_config(self)
        cut = {"part": raw.pop("part"), "widths": list(raw.pop("widths")), "margin": raw.pop("margin")}
        return {"method_config": cut, "target": None, **raw}
