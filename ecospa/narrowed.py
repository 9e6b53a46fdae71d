"""A freshly built dense model made to the shapes of a cut one: what an exported modelling file does when it is loaded.

Only the text of these functions travels (`ecospa.source_bundle`), so they need torch and nothing else of this package
but the attention of the model's family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ecospa.attention import CoupledAttention, HeadGeometry, swap_attention


def narrow_shapes(model: nn.Module, record: Mapping[str, Any], attention: type[CoupledAttention]) -> None:
    """Give parameters their cut shapes, uninitialised, and attention modules their forward.

    Args:
        model: dense, freshly built, on any device; its weights are about to be loaded.
        record: "shapes": parameter -> sizes, also of biases that the class does not have; "attention": attention module
            -> fields of its HeadGeometry.
        attention: forward for unequal widths.
    """
    for name, sizes in record["shapes"].items():
        holder, _, kind = name.rpartition(".")
        module: Any = model.get_submodule(holder)
        like = module.weight if getattr(module, kind, None) is None else getattr(module, kind)
        setattr(module, kind, nn.Parameter(torch.empty(sizes, dtype=like.dtype, device=like.device)))
        if kind == "weight" and isinstance(module, nn.Linear):
            module.out_features, module.in_features = sizes
        elif kind == "weight" and hasattr(module, "nf"):  # Conv1D, whose weight is (in, out)
            module.nx, module.nf = sizes
    for name, fields in record["attention"].items():
        module = model.get_submodule(name)
        geometry = HeadGeometry(**fields)
        swap_attention(module, attention, geometry)
        module.geometry = geometry
        if geometry.tracked:
            kept = torch.zeros(geometry.groups, geometry.qk_width, dtype=torch.int64, device=module.kept_qk.device)
            module.kept_qk = kept
