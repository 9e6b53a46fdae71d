"""Controls whose size or length is that of another run: settings that name the run, which is looked up when it is due.

EcoSpa's final widths, its average size and its training FLOPs are known only when it has been trained. A control that
has to equal one of them therefore waits for the record of that run, and says in its own record which one it was.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from benchmarks.experiment import Cell, MethodRef
from benchmarks.specs.scale import Scale
from benchmarks.specs.training import TrainingSettings

Size = Literal["target", "average", "final widths"]
Length = Literal["steps", "flops"]

CLASS = "baselines.small_dense:SmallDense"


@dataclass(frozen=True)
class Control:
    """A dense model of one size from the first step to the last, in terms of the run that it is matched to.

    Attributes:
        size: narrowed alike to the same target, or to the size that the run had on average over its steps, or the
            run's final widths.
        length: as many steps, or as many as come to the same training FLOPs.
        other_seed: matched to the run of a neighbouring seed.
    """

    size: Size
    length: Length
    other_seed: bool = False


CONTROLS = MappingProxyType(
    {
        "small_dense_equal_flops": Control("target", "flops"),
        "dense_average_size": Control("average", "steps"),
        "final_shape": Control("final widths", "steps"),
        "final_shape_other_seed": Control("final widths", "steps", other_seed=True),
        "final_shape_equal_flops": Control("final widths", "flops"),
    }
)


@dataclass(frozen=True)
class Reference:
    """The run that a control is matched to: a cell by the hash of its configuration, of the same seed or another."""

    experiment: str
    method: str
    config_hash: str
    other_seed: bool = False

    def seed(self, seed: int) -> int:
        """Seed of the run that a control of this seed is matched to: its own, or the one before (of 0, the one after).

        Args:
            seed: of the control.
        """
        if not self.other_seed:
            return seed
        return seed - 1 if seed else 1


@dataclass(frozen=True)
class MatchedSettings(TrainingSettings):
    """Settings of a control; steps and size in `training` and `shrink` are nominal, the reference's decide."""

    procedure: ClassVar[str] = "matched_training"

    control: Control = field(kw_only=True)
    reference: Reference = field(kw_only=True)

    def to_config(self) -> dict[str, Any]:
        """The settings as the plain JSON that a record keeps."""
        return {**super().to_config(), "matched": {**asdict(self.control), "reference": asdict(self.reference)}}


def control_cell(name: str, scale: Scale, reference: Cell, seeds: tuple[int, ...] | None = None) -> Cell:
    """The cell of a control.

    Args:
        name: one of CONTROLS.
        scale: with the learning rate of a small dense model.
        reference: the cell that shrinks, whose experiment, tier and target the control shares.
        seeds: of the control, where they are not those of the tier.
    """
    control = CONTROLS[name]
    made = scale.settings(MethodRef(name, CLASS), reference.settings.target, target_scope=_scope(reference))
    run = Reference(reference.experiment, reference.method, reference.config_hash, control.other_seed)
    parts = {part: getattr(made, part) for part in ("method", "target", "shrink", "model", "data", "protocol")}
    settings = MatchedSettings(**parts, training=made.training, control=control, reference=run)
    return Cell(reference.experiment, reference.tier, name, settings, seeds)


def _scope(reference: Cell) -> str:
    scope: str = reference.settings.shrink.target_scope
    return scope
