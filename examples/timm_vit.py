"""A timm vision transformer, trained and shrunk on generated images: `python examples/timm_vit.py`.

The images are noisy gratings of four orientations, so nothing is downloaded. Needs the extra `vision`. Shows a model
whose forward returns plain logits, and an optimizer with groups.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import timm
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import ecospa

ORIENTATIONS = 4


def gratings(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return noisy gratings (count, 3, size, size) of random phase, and their orientations (count,)."""
    labels = torch.randint(ORIENTATIONS, (count,), generator=generator)
    angles = (labels * math.pi / ORIENTATIONS).view(-1, 1, 1)
    phases = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    wave = torch.sin(0.8 * (rows * angles.sin() + columns * angles.cos()) + phases).unsqueeze(1)
    return wave + torch.randn(count, 3, size, size, generator=generator), labels


def main(arguments: Sequence[str] | None = None) -> float:
    """Train and shrink; returns the accuracy on images that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--target-size", type=float, default=0.5, help="share of the block parameters to keep")
    parser.add_argument("--depth", type=int, default=4)
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=64, depth=options.depth, num_heads=4,
        num_classes=ORIENTATIONS, pretrained=False,
    )  # fmt: skip
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": others}], lr=1e-3)

    config = ecospa.EcoSpaConfig(
        target_size=options.target_size, target_scope="blocks", pace="curve",
        start_step=options.steps // 10, end_step=options.steps * 3 // 4,
    )  # fmt: skip
    sparsity = ecospa.CoupledSparsity(model, optimizer, config)
    for _ in range(options.steps):
        images, labels = gratings(64, 32, generator)
        cross_entropy(model(images), labels).backward()
        sparsity.after_backward()
        optimizer.step()
        sparsity.after_step()
        optimizer.zero_grad()
    sparsity.close()

    images, labels = gratings(512, 32, generator)
    with torch.no_grad():
        accuracy = (model.eval()(images).argmax(1) == labels).float().mean().item()
    print(f"accuracy {accuracy:.1%}, widths {sorted({pair.width for pair in ecospa.coupled_pairs(model)})}")
    return accuracy


if __name__ == "__main__":
    main()
