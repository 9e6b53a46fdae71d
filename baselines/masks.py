"""Masks: entries that are gone for good but still stored, for methods whose result is no smaller dense model.

A masked entry is exactly zero, gets no gradient and has no optimizer state, so that it trains like one that was cut
out. The gradient is masked when it is made, before the optimizer or a clipping of its norm sees it: a hook after the
clipping would give masked methods smaller steps than those that cut.
"""

from __future__ import annotations

import base64
import functools
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Masks:
    """Removed entries of a model's parameters; they only ever grow.

    Attributes:
        removed: parameter name -> bool of the parameter's shape, True where an entry is gone.
    """

    def __init__(self) -> None:
        self.removed: dict[str, Tensor] = {}
        self._hooks: dict[str, Any] = {}

    @property
    def count(self) -> int:
        """Number of entries that are gone."""
        return sum(int(mask.sum()) for mask in self.removed.values())

    def attach(self, model: nn.Module) -> None:
        """Take over the model of a checkpoint: its gradients are masked from the next backward pass on."""
        for name, mask in list(self.removed.items()):
            self.remove(model, name, mask)

    def remove(self, model: nn.Module, name: str, entries: Tensor) -> None:
        """Add entries of one parameter, and mask its gradients from now on.

        Args:
            model: the model that is trained.
            name: dotted name of the parameter.
            entries: bool of the parameter's shape, True where an entry goes.

        Raises:
            ValueError: the shape is not the parameter's.
        """
        parameter = model.get_parameter(name)
        if entries.shape != parameter.shape:
            raise ValueError(
                f"{name}: the mask has shape {tuple(entries.shape)}, the parameter {tuple(parameter.shape)}; "
                "load the model that the masks belong to"
            )
        entries = entries.to(parameter.device)
        self.removed[name] = entries | self.removed[name].to(parameter.device) if name in self.removed else entries
        if name not in self._hooks and parameter.requires_grad:
            hook = functools.partial(self._masked, name)
            self._hooks[name] = parameter.register_hook(hook)

    @torch.no_grad()
    def zero_weights(self, model: nn.Module) -> None:
        """Set removed entries of the weights to zero, whatever the optimizer made of them."""
        for name in self.removed:
            parameter = model.get_parameter(name)
            parameter.masked_fill_(self._mask(name, parameter), 0)

    @torch.no_grad()
    def zero_state(self, model: nn.Module, optimizer: Any) -> None:
        """Set removed entries of gradients and of optimizer state of the parameter's shape to zero."""
        for name in self.removed:
            parameter = model.get_parameter(name)
            mask = self._mask(name, parameter)
            held = [parameter.grad, *optimizer.state.get(parameter, {}).values()]
            for value in held:
                if isinstance(value, Tensor) and value.shape == mask.shape:
                    value.masked_fill_(mask, 0)

    def detach(self) -> None:
        """Take the hooks off the model; what is zero stays zero until somebody trains it."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state: one bit per entry, compressed."""
        return {name: {"shape": list(mask.shape), "bits": _pack(mask)} for name, mask in self.removed.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the masks by those of `state_dict`; `attach` makes them act on a model again."""
        self.detach()
        self.removed = {name: _unpack(entry["bits"], entry["shape"]) for name, entry in state.items()}

    def _masked(self, name: str, grad: Tensor) -> Tensor:
        return grad.masked_fill(self._mask(name, grad), 0)

    def _mask(self, name: str, like: Tensor) -> Tensor:
        mask = self.removed[name]
        if mask.device != like.device:  # the model was moved after the masks were made
            mask = self.removed[name] = mask.to(like.device)
        return mask


_BITS = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device="cpu")


def _pack(mask: Tensor) -> str:
    flat = mask.cpu().flatten().to(torch.uint8)
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    packed = (flat * _BITS).sum(1, dtype=torch.uint8)
    return base64.b64encode(zlib.compress(packed.numpy().tobytes(), 1)).decode("ascii")


def _unpack(text: str, shape: list[int]) -> Tensor:
    packed = torch.frombuffer(bytearray(zlib.decompress(base64.b64decode(text))), dtype=torch.uint8)
    entries = torch.Size(shape).numel()
    return (packed[:, None] & _BITS).ne(0).flatten()[:entries].view(shape)
