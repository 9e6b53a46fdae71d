"""A fresh model of a given shape: small from its first step on, with weights that were never large or trained.

No part of the paper; it is the control that tells the shape of a shrunk model from the way that led there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ecospa.config import ConfigError
from ecospa.shape import Shape
from ecospa.surgery import apply_plan

Build = Callable[[], nn.Module]
"""Makes a dense model with fresh weights, another object at every call."""


def build_small(build: Build, shape: Shape, *, seed: int = 0) -> nn.Module:
    """A fresh model of a shape.

    The dense model is built under the seed, and every pair keeps its first units. Transformers' and timm's own
    initialisation draws each entry of the coupled matrices independently, from a distribution that does not depend on
    their inner widths (normal or truncated normal of a constant spread, times 1 / sqrt(2 L) where GPT-2 scales by
    depth), so what is kept is distributed as a model made at these widths would be. The random state of the process
    stays as it was.

    Args:
        build: makes the dense model, on its device.
        shape: of `find_shape`, of a rule of `ecospa.shape_rules`, or `Shape.build`.
        seed: of torch's random numbers while the model is built.

    Returns:
        The model, an ordinary smaller one for any trainer; `save_pretrained`, `plan_shrink` and `verify` take it like
        one that was shrunk to these widths.

    Raises:
        ShapeError: the shape is that of another model, or build() gave one that has been cut.
        ConfigError: the seed is no whole number, or build() gave no model.
        UnsupportedModelError: the model cannot be cut.

    Deviation: attention keeps the softmax scale of the dense head width d, 1 / sqrt(d), where a model made at width w
    would have 1 / sqrt(w), and rotary heads keep their highest frequencies. Both are those of a model that was shrunk
    to the shape, so that a comparison with it differs in the weights alone, and of every load of the saved folder.
    """
    with seeded(seed):
        model = built(build)
    apply_plan(model, shape.plan(model))
    return model


def built(build: Build) -> nn.Module:
    """The model that `build()` returns.

    Raises:
        ConfigError: it is something else.
    """
    model = build()
    if not isinstance(model, nn.Module):
        raise ConfigError(f"build() returned a {type(model).__name__}; it must return a new torch model at every call")
    return model


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw from a seed for a while, and put its random state back, of the CPU and of a GPU in use.

    Raises:
        ConfigError: the seed is no whole number from 0 on.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed is {seed!r}; it must be a whole number from 0 on")
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = [torch.cuda.current_device()] if in_use else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
