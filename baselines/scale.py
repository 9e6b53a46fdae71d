"""SCALE: SGD on gradients whose columns are normalised, with momentum in the last layer alone.

Source: Glentis et al. (arXiv 2506.16659), algorithm 1; what "column" means, from the authors' code.
Equations: G (out, in) is the gradient of a matrix, of an embedding as (width, vocabulary); for every output i
    U_i = G_i / sqrt(mean_j G_ij^2),  W <- W - lr U
In the last layer the moving average M <- 0.9 M + 0.1 G stands in for G.
Faithful: all of this; norms and biases are trained by AdamW at the same rate, as in the authors' code.
Changed: tied embeddings are a last layer, normalised as such. What is no weight of a linear layer or embedding
(a ViT's patches and positions) is left to AdamW.
One average of the last layer is the whole state of the matrices. The budget's target is not looked at.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from baselines.method import TrainingMethod
from baselines.split_optimizer import MatrixOptimizer, Part, SplitOptimizer
from ecospa import ConfigError
from ecospa.families import transformer_blocks

MOMENTUM = 0.9
FLOOR = 1e-8
"""Least root mean square that a gradient is divided by, as in the authors' code."""


class Scale(TrainingMethod):
    """Normalises the columns of every gradient, and averages those of the last layer."""

    name: ClassVar[str] = "scale"
    title = "SCALE"
    removes = "nothing"
    group = "memory-efficient training"
    reads_gradients: ClassVar[bool] = False

    def build_optimizer(self, model: nn.Module) -> SplitOptimizer:
        """SCALE for all matrices, AdamW for norms and biases."""
        groups = matrix_groups(model)
        matrices = {id(parameter) for group in groups for parameter in group["params"]}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in matrices]
        parts: list[Part] = [ColumnNormalisedSGD(groups, self.budget, momentum=0.0)] if groups else []
        if rest:
            parts.append(torch.optim.AdamW(rest, lr=self.budget.learning_rate, weight_decay=self.budget.weight_decay))
        if not parts:
            raise ConfigError("no parameter of the model requires a gradient; train at least one")
        return SplitOptimizer(parts)


class ColumnNormalisedSGD(MatrixOptimizer):
    """The equations of this file; groups without momentum keep no state."""

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """U, (out, in)."""
        if group["momentum"]:
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(gradient)
            gradient = state["exp_avg"].lerp_(gradient, 1 - group["momentum"])
        return gradient / gradient.square().mean(1, keepdim=True).sqrt().clamp(min=FLOOR)


def matrix_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The trained weights of linear layers and embeddings, in groups by orientation, and the last layer's by itself.

    Args:
        model: a model of a known family; its last linear layer outside of the blocks has the momentum.
    """
    found: dict[tuple[bool, float], dict[int, nn.Parameter]] = {}
    last = last_layer(model)
    seen: set[int] = set()
    # the last layer first: a weight that it shares with the embeddings is its own
    for module in ([last] if last is not None else []) + list(model.modules()):
        if not isinstance(module, (nn.Linear, nn.Embedding, Conv1D)):
            continue
        weight: Any = module.weight
        if not weight.requires_grad or id(weight) in seen:
            continue
        seen.add(id(weight))
        key = (isinstance(module, (nn.Embedding, Conv1D)), MOMENTUM if module is last else 0.0)
        found.setdefault(key, {})[id(weight)] = weight
    return [
        {"params": list(weights.values()), "transposed": transposed, "momentum": momentum}
        for (transposed, momentum), weights in found.items()
    ]


def last_layer(model: nn.Module) -> nn.Module | None:
    """The last linear layer outside of the blocks, such as the head; None where there is none."""
    inside = {id(module) for block in transformer_blocks(model).values() for module in block.modules()}
    outside = [m for m in model.modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    return outside[-1] if outside else None
