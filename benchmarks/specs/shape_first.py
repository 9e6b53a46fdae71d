"""A fresh model in the shape of a probe: EcoSpa over a part of the steps finds the widths, and training begins anew.

The probe is a part of the run itself: its FLOPs are the run's, and only a run that ends at the same training FLOPs as
EcoSpa has to wait for the record of another one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

from benchmarks.experiment import Cell, MethodRef
from benchmarks.specs.matched import CLASS, Reference
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import ShrinkSpec, TrainingSettings


@dataclass(frozen=True)
class ProbeSpec:
    """A short run that shrinks to the target, and leaves its widths.

    Attributes:
        method: of `baselines`, EcoSpa or one of its switches.
        share: of the steps of the training that it is for.
        runs: with a seed of their own each, whose widths are averaged.
    """

    method: str
    share: float
    runs: int = 1

    def shrink(self, spec: ShrinkSpec) -> ShrinkSpec:
        """The curve of a probe: begun and spaced in proportion to its steps, at the target with the last of them."""
        steps = self.steps(spec.total_steps)
        start, interval = round(self.share * spec.start_step), max(1, round(self.share * spec.interval))
        return replace(spec, total_steps=steps, start_step=start, end_step=steps, interval=interval)

    def steps(self, total: int) -> int:
        """Steps of a probe for a training of so many."""
        return round(self.share * total)


@dataclass(frozen=True)
class ShapeFirstSettings(TrainingSettings):
    """Settings of a run: those of its fresh model, whose widths the probe decides.

    `reference` is the run at whose training FLOPs this one ends, the probe's counted; without one the fresh model is
    trained for all the steps, and the probe comes on top.
    """

    procedure: ClassVar[str] = "shape_first"

    probe: ProbeSpec = field(kw_only=True)
    reference: Reference | None = field(default=None, kw_only=True)

    def to_config(self) -> dict[str, Any]:
        """The settings as the plain JSON that a record keeps."""
        reference = None if self.reference is None else asdict(self.reference)
        return {**super().to_config(), "shape_first": {"probe": asdict(self.probe), "reference": reference}}


def shape_first_settings(
    name: str, scale: Scale, target: float, probe: ProbeSpec, reference: Cell | None = None
) -> ShapeFirstSettings:
    """Settings of one arm.

    Args:
        name: of the arm.
        scale: of the tier.
        target: share of the block parameters that is left.
        probe: finds the widths.
        reference: the cell at whose training FLOPs the run ends; None trains for the steps of the scale.
    """
    made = scale.settings(MethodRef(name, CLASS), target)
    parts = {part: getattr(made, part) for part in vars(made)}
    run = None if reference is None else Reference(reference.experiment, reference.method, reference.config_hash)
    return ShapeFirstSettings(**parts, probe=probe, reference=run)
