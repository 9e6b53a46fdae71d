"""What an image classifier is and how it is judged: settings of the runs on images, and timm's models by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import set_seed

from benchmarks.augmentation import AugmentationSpec
from benchmarks.distillation import TeacherSpec


@dataclass(frozen=True)
class VisionModelSpec:
    """A VisionTransformer of timm trained from scratch.

    Attributes:
        name: timm's name of an architecture, such as "deit_tiny_patch16_224"; the sizes below replace its own.
        layers, width, heads: of the transformer; the feed-forward part is four times as wide.
        patch: height and width of a patch, in pixels.
        size: height and width of an image; a multiple of `patch`.
        classes: of the data.
        drop_path: share of residual branches skipped in the last block while it trains; less in those before it.
    """

    name: str
    layers: int
    width: int
    heads: int
    patch: int
    size: int
    classes: int
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise ValueError(f"size is {self.size}; it must be a multiple of patch, which is {self.patch}")
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}; it must be a multiple of heads, which is {self.heads}")


@dataclass(frozen=True)
class ImageProtocolSpec:
    """How a classifier is trained and judged: accuracy on whole, unaugmented images of `split`."""

    task: ClassVar[str] = "image_classification"

    split: str
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    teacher: TeacherSpec | None = None


def build_classifier(spec: VisionModelSpec, seed: int, device: str = "cpu") -> nn.Module:
    """A freshly initialised model: the same weights for the same seed, whatever method is to train it.

    Args:
        spec: architecture and sizes.
        seed: of every random generator, set here.
        device: where the model is put; "meta" for its shapes alone.

    Raises:
        ValueError: timm has no VisionTransformer of that name.
    """
    import timm

    if not timm.models.is_model_in_modules(spec.name, ("vision_transformer", "deit")):
        raise ValueError(
            f"name is {spec.name!r}; give a VisionTransformer or DeiT of timm, such as 'deit_tiny_patch16_224'"
        )
    set_seed(seed)
    sizes = {"img_size": spec.size, "patch_size": spec.patch, "num_classes": spec.classes}
    shape = {"embed_dim": spec.width, "depth": spec.layers, "num_heads": spec.heads, "drop_path_rate": spec.drop_path}
    with torch.device(device):
        model: nn.Module = timm.create_model(spec.name, pretrained=False, **sizes, **shape)
    return model


def positions(spec: VisionModelSpec) -> int:
    """Patches of an image and the tokens before them: the length of the sequence inside the model."""
    model: Any = build_classifier(spec, seed=0, device="meta")
    return int(model.patch_embed.num_patches + model.num_prefix_tokens)
