"""What stands around a model: compiled modules are seen through, so that names are those of the model itself."""

from __future__ import annotations

from torch import nn

_COMPILED = "_orig_mod"
"""Where torch.compile keeps the module that it compiles."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own model behind `torch.compile`; any other model as it is.

    Args:
        model: a model, compiled or not.
    """
    while isinstance(inner := model._modules.get(_COMPILED), nn.Module):
        model = inner
    return model
