"""Scale of a training experiment in one tier: the sizes that it changes, and the settings of a run made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.data import source as sources
from benchmarks.experiment import MethodRef
from benchmarks.specs.encoder import MINILM_ID
from benchmarks.specs.training import ShrinkSpec, TrainingSettings, TrainingSpec


@dataclass(frozen=True)
class Scale:
    """Model, data, protocol and training of a tier, and when its models shrink.

    `protocol.task` names the file of `benchmarks/tasks` that reads the first three.
    """

    model: Any
    data: Any
    protocol: Any
    training: TrainingSpec
    start_step: int
    end_step: int
    interval: int
    width_multiple: int

    def settings(self, method: MethodRef, target: float | None, **shrink: Any) -> TrainingSettings:
        """Settings of one cell.

        Args:
            method: what shrinks.
            target: share of the block parameters that is left, or None.
            **shrink: fields of ShrinkSpec that differ from the tier's.
        """
        schedule = {
            "total_steps": self.training.steps,
            "start_step": self.start_step,
            "end_step": self.end_step,
            "interval": self.interval,
            "width_multiple": self.width_multiple,
        }
        spec = ShrinkSpec(target_size=target, **{**schedule, **shrink})
        return TrainingSettings(method, target, spec, self.model, self.data, self.protocol, self.training)

    @property
    def sources(self) -> tuple[sources.BoundSource, ...]:
        """The data that it needs, and the weights of others."""
        needed = [(self.data.source, self.data.configuration)]
        weights = getattr(self.model, "weights", None)
        if weights is not None:
            needed.append(("minilm" if weights == MINILM_ID else "hub_weights", weights))
        return tuple(sources.find(name).bind(configuration) for name, configuration in needed)
