"""Settings of a training run: optimizer steps, the size over steps, and all that decides its result but the seed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from benchmarks.experiment import MethodRef
from benchmarks.specs.multiples import WidthMultiple


@dataclass(frozen=True)
class Throughput:
    """Settings that make a training step faster and leave its result as it is, within rounding.

    Attributes:
        compile_blocks: every transformer block is compiled by itself, for the shapes that it has. Blocks of equal
            shapes share their code, so a dense model costs one compilation; after a cut every block that got a shape of
            its own is compiled again, at the next step, and `recompile_seconds` of the record says for how long.
        fused_optimizer: AdamW updates all parameters by one kernel; a method with an optimizer of its own keeps that.
        data_workers: processes that make batches ahead of the step, in page-locked memory where there is a GPU; with 0
            the training process makes them.
    """

    compile_blocks: bool = False
    fused_optimizer: bool = False
    data_workers: int = 0


@dataclass(frozen=True)
class TrainingSpec:
    """Optimizer steps and their learning rate: AdamW, linear warm-up, cosine decay to zero.

    `batch_size` counts examples per optimizer step, `micro_batch_size` those per backward pass.
    """

    steps: int
    batch_size: int
    learning_rate: float
    micro_batch_size: int
    warmup_steps: int
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    throughput: Throughput | None = None


def as_config(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON; no throughput settings are left out, as in records from before there were any.

    Args:
        settings: a dataclass that may hold a TrainingSpec at any depth.
    """
    return dataclasses.asdict(settings, dict_factory=_without_defaults)


def _without_defaults(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in entries if (name, value) != ("throughput", None)}


@dataclass(frozen=True)
class ShrinkSpec:
    """The size over steps that every shrinking method has to follow (baselines.method.Budget without its seed)."""

    target_size: float | None
    total_steps: int
    start_step: int
    end_step: int
    interval: int
    curve: Literal["cubic", "linear"] = "cubic"
    target_scope: Literal["parameters", "blocks"] = "blocks"
    width_multiple: WidthMultiple = 8
    top_k: float = 0.30
    importance_threshold: float = 0.90


@dataclass(frozen=True)
class TrainingSettings:
    """All that decides the outcome of one training run, but its seed.

    `model`, `data` and `protocol` are frozen dataclasses that the task understands; `protocol.task` is its file in
    `benchmarks/tasks`. ModelSpec, DataSpec and ProtocolSpec are those of language models.
    """

    procedure: ClassVar[str] = "training"

    method: MethodRef
    target: float | None
    shrink: ShrinkSpec
    model: Any
    data: Any
    protocol: Any
    training: TrainingSpec

    def to_config(self) -> dict[str, Any]:
        """The settings as the plain JSON that a record keeps."""
        method_config = dataclasses.asdict(self.shrink)
        if self.method.location is not None:
            method_config["location"] = self.method.location
        parts = {name: as_config(getattr(self, name)) for name in ("model", "data", "protocol", "training")}
        return {"method_config": method_config, "target": self.target, **parts}


@dataclass(frozen=True)
class OneShotSettings(TrainingSettings):
    """Settings of a run that cuts a trained model once and evaluates it, without a step of training."""

    procedure: ClassVar[str] = "one_shot"

    @classmethod
    def of(cls, settings: TrainingSettings) -> OneShotSettings:
        """The same settings for this procedure."""
        return cls(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(TrainingSettings)})
