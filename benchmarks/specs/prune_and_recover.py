"""Settings of pruning a pretrained model event by event, with recovery in between."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.specs.language import DataSpec, ProtocolSpec
from benchmarks.specs.training import ShrinkSpec, as_config


@dataclass(frozen=True)
class RecoverySpec:
    """The text that the model tells itself, and how it is trained on it: AdamW at a constant low rate."""

    stories: int
    story_tokens: int
    batch_size: int
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class CorpusRecoverySpec:
    """Recovery on the training side of the text that the model is judged by: AdamW at a constant low rate."""

    batch_size: int
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class PretrainedSettings:
    """All that decides the outcome but the seed; `shrink` has a linear curve: stages equally far apart."""

    procedure: ClassVar[str] = "prune_and_recover"

    shrink: ShrinkSpec
    model: str
    data: DataSpec
    protocol: ProtocolSpec
    training: RecoverySpec | CorpusRecoverySpec
    prompt: str
    generated_tokens: int

    @property
    def target(self) -> float | None:
        """Share of the block parameters kept."""
        return self.shrink.target_size

    def to_config(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        parts = {name: as_config(getattr(self, name)) for name in ("data", "protocol", "training")}
        return {
            "method_config": dataclasses.asdict(self.shrink),
            "target": self.target,
            "model": {"pretrained": self.model},
            "generation": {"prompt": self.prompt, "tokens": self.generated_tokens},
            **parts,
        }
