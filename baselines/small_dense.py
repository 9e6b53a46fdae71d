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
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

import ecospa
from baselines.initialization import scale_residual_outputs
from baselines.method import Budget, TrainingMethod, size_entry
from ecospa import ConfigError, Shape, shape_rules
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
        """A fresh model of the target size, or of the budget's widths; its first weights are not those of `model`.

        Raises:
            ConfigError: the target cannot be reached, or the model cannot be built anew from its own `config` or name.
        """
        widths = self.budget.widths
        shape = shape_rules.uniform(model, self.config) if widths is None else Shape.build(model, widths)
        return start_small(self, model, shape)


def start_small(method: TrainingMethod, model: nn.Module, shape: Shape) -> nn.Module:
    """A fresh model of a shape in the place of the dense one, where a method's run begins.

    Args:
        method: whose history begins with it.
        model: the dense model.
        shape: made for it.

    Raises:
        ConfigError: the model cannot be built anew from its own `config` or name.
    """
    small = fresh_model(model, shape, method.budget.seed)
    method.history[:] = [size_entry(0, small)]
    return small


def fresh_model(model: nn.Module, shape: Shape, seed: int) -> nn.Module:
    """A fresh model of a shape and of the architecture of a model, in its training mode, dtype and place.

    Args:
        model: the dense model; its weights are not looked at.
        shape: made for it.
        seed: of the run.

    Raises:
        ConfigError: the model cannot be built anew from its own `config` or name.
    """
    # another stream than the one that a run with this seed starts from
    return ecospa.build_small(lambda: _built_anew(model), shape, seed=seed + 0x5D5D5D5D)


def _built_anew(model: Any) -> nn.Module:
    """The same architecture with new weights by its own rule."""
    first = next(model.parameters())
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
