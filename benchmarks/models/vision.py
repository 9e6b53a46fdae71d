"""Image classifiers: timm's models by name, in the sizes of a spec."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import set_seed

from benchmarks.specs.vision import VisionModelSpec


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
    sizes: dict[str, Any] = {"img_size": spec.size, "patch_size": spec.patch, "num_classes": spec.classes}
    sizes |= {"embed_dim": spec.width, "depth": spec.layers, "num_heads": spec.heads, "drop_path_rate": spec.drop_path}
    with torch.device(device):
        model: nn.Module = timm.create_model(spec.name, pretrained=False, **sizes)
    return model


def positions(spec: VisionModelSpec) -> int:
    """Patches of an image and the tokens before them: the length of the sequence inside the model."""
    model: Any = build_classifier(spec, seed=0, device="meta")
    return int(model.patch_embed.num_patches + model.num_prefix_tokens)
