"""Settings of experiments in which shapes alone matter: models of random weights, random inputs, no data.

Imports no torch, because a plan of runs does without.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from benchmarks.data.source import BoundSource
from benchmarks.experiment import MethodRef, Tier
from benchmarks.specs.multiples import WidthMultiple

InferenceMode = Literal["plain", "merged", "static", "compiled"]
TrainingMode = Literal["plain", "fused", "autocast", "compiled"]
ROUNDING = ("ecospa", "ecospa_tied")
"""Methods of these experiments that round widths to multiples."""


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model of random weights.

    Attributes:
        name: gpt2, llama, llama_grouped (two query heads per key/value head), bert or vit.
        layers, width, heads: of its blocks.
        length: tokens per sequence at most, or pixels at a side of an image.
        vocabulary: of a model of text.
        hidden: width of the feed-forward layers; None for the family's own proportion.
        patch: pixels at a side of a patch.
    """

    name: str
    layers: int
    width: int
    heads: int
    length: int
    vocabulary: int = 1024
    hidden: int | None = None
    patch: int = 4


@dataclass(frozen=True)
class SpeedProtocol:
    """Settings of measuring a speed.

    Attributes:
        phase: "training" steps, a forward pass over the batch ("prefill"), or generation token by token ("decode").
        batch: sequences or images at a time.
        sequence: tokens of a sequence; of images what their size and patches make of them.
        turns: measurements that count, at most; as many inputs, so that nothing is measured out of a cache. Inference
            stops earlier when the interval of its ratios is narrow, and a metric's `n` says after how many.
        width_multiple: widths of the shrunk model stay multiples of this.
        precision: "fp32", or "bf16" for weights, gradients and optimizer state alike.
        device: "cpu" or "cuda".
        generated: tokens that are written one by one after `sequence`, in the decode phase.
        mode: how dense and compressed model infer: "plain", as they are; "merged", with one product for all projections
            of an input; "static", from a cache of fixed size; "compiled", by a compiled forward pass, which decodes
            from such a cache, on a GPU as a CUDA graph. How they train: "plain"; "fused", with one kernel for the
            optimizer's whole update; "autocast", with products in bfloat16 and weights as they are; "compiled".
    """

    phase: Literal["training", "prefill", "decode"]
    batch: int
    sequence: int
    turns: int
    width_multiple: WidthMultiple = 16
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    generated: int = 0
    mode: InferenceMode | TrainingMode = "plain"


@dataclass(frozen=True)
class SpeedSettings:
    """All that decides what is measured, but the seed."""

    method: MethodRef
    target: float | None
    model: ModelShape
    protocol: SpeedProtocol

    def to_config(self) -> dict[str, Any]:
        """The settings as plain JSON; the plain mode is left out, as in records from before there were others."""
        protocol = dataclasses.asdict(self.protocol)
        if self.protocol.mode == "plain":
            del protocol["mode"]
        return {
            "method_config": {} if self.method.location is None else {"location": self.method.location},
            "target": self.target,
            "model": dataclasses.asdict(self.model),
            "data": {"source": "random numbers"},
            "protocol": protocol,
        }


@dataclass(frozen=True)
class TrainingSpeedSettings(SpeedSettings):
    """Settings of the time of a training step."""

    procedure: ClassVar[str] = "training_speed"


@dataclass(frozen=True)
class InferenceSpeedSettings(SpeedSettings):
    """Settings of the time of prefill and decode."""

    procedure: ClassVar[str] = "inference_speed"


@dataclass(frozen=True)
class TrainingMemorySettings(SpeedSettings):
    """Settings of the memory that training takes."""

    procedure: ClassVar[str] = "training_memory"


def no_sources(tier: Tier) -> tuple[BoundSource, ...]:
    """No data: shapes are what costs."""
    return ()
