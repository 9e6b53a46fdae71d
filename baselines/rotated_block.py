"""A transformer block whose residual stream stands in another basis at each of its norms, and the norm that allows it.

An RMS norm without a gain commutes with rotations, because |x Q| = |x|. The stream may therefore be expressed in any
orthonormal basis, another one at every norm, if the residual paths change the basis by a shortcut matrix. With fewer
basis vectors than coordinates the stream is sliced.

Source: SliceGPT (arXiv 2401.15024), theorem 1 and section 3.3.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Half:
    """One residual branch of a block: an attention or an MLP, with the norm before it.

    Attributes:
        norm: name of the norm inside the block.
        branch: name of the attention or MLP inside the block.
        readers: projections that read the normed stream.
        writer: projection that adds to the stream.
        shortcut: name of the block's parameter that changes the basis of the stream that goes past.
    """

    norm: str
    branch: str
    readers: tuple[str, ...]
    writer: str
    shortcut: str


HALVES = {
    "gpt2": (
        Half("ln_1", "attn", ("attn.c_attn",), "attn.c_proj", "attention_shortcut"),
        Half("ln_2", "mlp", ("mlp.c_fc",), "mlp.c_proj", "mlp_shortcut"),
    ),
    "llama": (
        Half(
            "input_layernorm", "self_attn", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "self_attn.o_proj", "attention_shortcut",
        ),
        Half(
            "post_attention_layernorm", "mlp", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj", "mlp_shortcut",
        ),
    ),
}  # fmt: skip
"""Family file -> the attention half and the MLP half of its blocks, in the order in which they run."""


class GainlessRMSNorm(nn.Module):
    """x / sqrt(sum_j x_j^2 / d + eps), with d the width before slicing: what is left keeps its scale.

    Args:
        width: d.
        eps: epsilon of the norm that it stands for.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps

    def forward(self, states: Tensor) -> Tensor:
        """Norm over the last axis, in float32 or the wider dtype of the input; the result has the input's dtype."""
        wide = states.to(torch.promote_types(states.dtype, torch.float32))
        mean_square = wide.square().sum(-1, keepdim=True) / self.width
        return (wide * torch.rsqrt(mean_square + self.eps)).to(states.dtype)

    def extra_repr(self) -> str:
        """Width of the denominator, and epsilon."""
        return f"{self.width}, eps={self.eps}"


class RotatedBlock:
    """x <- x S_1 + attention(norm(x)), then x <- x S_2 + mlp(norm(x)); S_1 and S_2 are the shortcuts.

    Attributes:
        original: class of the block before it was swapped, by which ecospa goes on recognising it.
        takes: names of the original's arguments after the hidden states.
        halves: where norms, branches and shortcuts are.
    """

    original: ClassVar[type[nn.Module]]
    takes: ClassVar[tuple[str, ...]]
    halves: tuple[Half, Half]

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the original; masks, positions and cache go on to the attention, which takes them by the same names."""
        kwargs.update(zip(self.takes, args, strict=False))
        first, second = self.halves
        branch, _ = getattr(self, first.branch)(getattr(self, first.norm)(hidden_states), **kwargs)
        hidden_states = hidden_states @ getattr(self, first.shortcut) + branch
        branch = getattr(self, second.branch)(getattr(self, second.norm)(hidden_states))
        result: Tensor = hidden_states @ getattr(self, second.shortcut) + branch
        return result

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # the class is made at run time: pickle and deepcopy rebuild it from its importable parent
        return _new_block, (type(self).original,), self.__dict__


def _new_block(original: type[nn.Module]) -> nn.Module:
    return nn.Module.__new__(rotated_class(original))


def rotated_class(original: type[nn.Module]) -> type[nn.Module]:
    """The subclass of a block class that runs as a RotatedBlock; made once, so that classes compare equal."""
    if original not in _CLASSES:
        takes = tuple(inspect.signature(original.forward).parameters)[2:]  # after self and the hidden states
        namespace = {"original": original, "takes": takes, "__module__": __name__, "__doc__": RotatedBlock.__doc__}
        _CLASSES[original] = type(f"Rotated{original.__name__}", (RotatedBlock, original), namespace)
    return _CLASSES[original]


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}
