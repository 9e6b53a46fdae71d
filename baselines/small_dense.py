"""A small dense model from scratch: the final size from the first step on, and never anything else.

It answers the question that the reviews of the paper asked: does shrinking during training give anything that training
a small model does not? The small model has the family of shapes in which `ecospa` ends: the depth, the residual width,
the embeddings and the number of heads of the dense model, with narrower heads and a narrower feed-forward layer. Its
widths are a uniform share of the dense ones, because nothing is known yet that could tell layers apart.

Source: the "small dense" control of the lottery-ticket and sparse-training literature (Liu et al., arXiv 1810.05270).
Faithful: the same size within one width step, all steps of the run, a fresh initialisation by the architecture's own
rule.
Simplified: no search for the best small shape (a narrower residual stream may do better), and the attention keeps the
softmax scale of the dense head width, as a shrunk model does.
"""

from __future__ import annotations

import copy
from math import lcm
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from baselines.curve import narrowed
from baselines.initialization import scale_residual_outputs
from baselines.method import Budget, TrainingMethod, size_entry
from ecospa import ConfigError, CoupledPair, CoupledSparsifier, SparsityPlan, WidthRule, apply_plan, coupled_pairs
from ecospa.plan import index_parameters
from ecospa.timm_models import timm_config, timm_model


class SmallDense(TrainingMethod):
    """Trains a model of the target size that was never larger."""

    name: ClassVar[str] = "small_dense"
    title = "small dense"
    removes = "nothing"
    group = "dense control"
    reads_gradients: ClassVar[bool] = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self.config = budget.config()

    def prepare(self, model: nn.Module, calibration: Any = None) -> nn.Module:
        """A fresh model of the target size; its first weights are not those of `model`.

        Raises:
            ConfigError: the target cannot be reached, or the model cannot be built anew from its own `config` or name.
        """
        sparsifier = CoupledSparsifier(model, self.config)
        small = _fresh(model, self.budget.seed)
        excess = sparsifier.size(model) - sparsifier.target_size
        given, rule = self.budget.widths, self.budget.rule
        apply_plan(small, uniform_plan(small, excess, rule) if given is None else narrowed(small, given))
        self.history[:] = [size_entry(0, small)]
        return small


def uniform_plan(model: nn.Module, removable: int, width_multiple: int | WidthRule) -> SparsityPlan:
    """The plan that narrows all pairs by the same share, within one width step.

    The pair that has kept the largest share of its width loses one step, again and again, while no more than
    `removable` parameters go.

    Args:
        model: a model of a supported family.
        removable: parameters that may go at most.
        width_multiple: widths stay multiples of this, and at least this; or by kind of pair, of those of a rule.

    Returns:
        The plan, keeping the first indices of every pair: of fresh weights none is better than another.
    """
    rule = width_multiple if isinstance(width_multiple, WidthRule) else WidthRule.uniform(width_multiple)
    pairs = {pair.name: pair for pair in coupled_pairs(model)}
    widths = {name: pair.width for name, pair in pairs.items()}
    costs = {name: index_parameters(model, pair) for name, pair in pairs.items()}
    while True:
        steps = {name: _narrower(pairs[name], width, rule) for name, width in widths.items()}
        fitting = [name for name, new in steps.items() if new and (widths[name] - new) * costs[name] <= removable]
        if not fitting:
            return narrowed(model, widths)
        widest = max(fitting, key=lambda name: widths[name] / pairs[name].width)
        removable -= (widths[widest] - steps[widest]) * costs[widest]
        widths[widest] = steps[widest]


def _narrower(pair: CoupledPair, width: int, rule: WidthRule) -> int:
    """The next smaller allowed width, or 0 at the floor."""
    step = lcm(rule.multiple(pair.kind), pair.unit)
    return (width - 1) // step * step


def _fresh(model: Any, seed: int) -> nn.Module:
    """The same architecture with new weights by its own rule."""
    first = next(model.parameters())
    # another stream than the one that a run with this seed starts from, and the caller's stays where it is
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 0x5D5D5D5D)
        if hasattr(model, "config") and hasattr(model, "init_weights"):
            fresh: nn.Module = type(model)(copy.deepcopy(model.config))
            scale_residual_outputs(fresh)
        elif hasattr(model, "pretrained_cfg"):
            fresh = timm_model(timm_config(model, {}), Path("pretrained_cfg"))
        else:
            kind = type(model)
            raise ConfigError(
                "small_dense builds a model anew from its transformers `config` or its timm name, which "
                f"{kind.__module__}.{kind.__qualname__} has not; give a transformers or timm model"
            )
    return fresh.to(device=first.device, dtype=first.dtype).train(model.training)
