"""Surgery on residual streams: norms made free of gain and mean, and the stream brought into other bases.

Once gains, biases and mean subtractions are absorbed into the matrices around the norms, the stream may stand in any
orthonormal basis. `convert` does the first, without changing what the model computes; `enter` and `leave` do the second
for one half of a block at a time, so that a basis can be chosen from what the halves before it really give.

Source: SliceGPT (arXiv 2401.15024), theorem 1 and sections 3.1 to 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from baselines.block_walk import matrix
from baselines.rotated_block import HALVES, GainlessRMSNorm, Half, RotatedBlock, rotated_class
from ecospa import UnsupportedModelError, coupled_pairs
from ecospa.families import transformer_blocks

_LAST_NORM = {"gpt2": "ln_f", "llama": "norm"}


@dataclass(frozen=True)
class Ends:
    """Modules that read and write the residual stream outside the blocks.

    Attributes:
        embeddings: token and, where there are some, position embeddings.
        base: the module that holds the last norm.
        norm: its name there.
        head: the language model head.
    """

    embeddings: tuple[nn.Embedding, ...]
    base: nn.Module
    norm: str
    head: nn.Linear


def ends(model: Any, family: str) -> Ends:
    """Embeddings, last norm and head of a language model.

    Raises:
        UnsupportedModelError: the model has no plain language model head, was rotated before, or holds adapters or
            other parts that would not be rotated.
    """
    if is_rotated(model):
        raise UnsupportedModelError(
            f"{type(model).__name__} has a rotated residual stream already; start from the dense model"
        )
    coupled_pairs(model)  # refuses extra paths, adapters and quantised projections
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    base, norm = getattr(model, "base_model", None), _LAST_NORM[family]
    if type(head) is not nn.Linear or not isinstance(getattr(base, norm, None), nn.Module):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no language model head over a last norm {norm!r}, which would read the sliced "
            "stream; use the class with the head, such as GPT2LMHeadModel or LlamaForCausalLM"
        )
    assert isinstance(base, nn.Module)  # it holds the norm
    return Ends(tuple(part for part in base.modules() if isinstance(part, nn.Embedding)), base, norm, head)


def is_rotated(model: nn.Module) -> bool:
    """Return True if `convert` or `restructure` has been at this model."""
    return any(isinstance(module, RotatedBlock) for module in model.modules())


@torch.no_grad()
def convert(model: Any, family: str) -> Ends:
    """Make every norm a gain-free RMS norm and give every block shortcuts that are the identity, in place and exactly.

    LN(x) = RMS(x M) diag(g) + b with M = I - 1 1^T / d: M goes into embeddings and writers, g and b into readers.

    Args:
        model: a dense language model of the family; tied embeddings are untied, because only the head is behind a norm.
        family: "gpt2" or "llama".

    Returns:
        The ends of its residual stream.

    Raises:
        UnsupportedModelError: see `ends`.

    Source: SliceGPT, section 3.2.
    """
    outer = ends(model, family)
    blocks = list(transformer_blocks(model).values())
    _untie(model, outer.head)
    last_norm: Any = getattr(outer.base, outer.norm)
    identity = torch.eye(last_norm.weight.shape[0], dtype=torch.float64, device=last_norm.weight.device)
    if isinstance(last_norm, nn.LayerNorm):
        rotate_embeddings(outer, identity - 1 / len(identity))
        for block in blocks:
            for half in HALVES[family]:
                _write(block.get_submodule(half.writer), identity - 1 / len(identity))
    _absorb(outer.base, outer.norm, [outer.head])
    for block in blocks:
        for half in HALVES[family]:
            _absorb(block, half.norm, [block.get_submodule(name) for name in half.readers])
            like = matrix(block.get_submodule(half.writer))
            block.register_parameter(half.shortcut, nn.Parameter(identity.to(like.device, like.dtype)))
        block.__class__ = rotated_class(type(block))
        block.halves = HALVES[family]  # type: ignore[assignment]
    return outer


def restructure(model: nn.Module, family: str, width: int) -> None:
    """Give a dense model the shapes of one whose stream is `width` wide, in place; its values mean nothing then.

    Args:
        model: a dense model, on the meta device too.
        family: "gpt2" or "llama".
        width: n, in [1, d].

    Raises:
        UnsupportedModelError: see `ends`.
    """
    outer = convert(model, family)
    weight = outer.head.weight
    basis = torch.eye(weight.shape[1], width, dtype=torch.float64, device=weight.device)
    rotate_embeddings(outer, basis)
    for block in transformer_blocks(model).values():
        for half in HALVES[family]:
            enter(block, half, basis)
            leave(block, half, basis)
    rotate_head(outer, basis)


@torch.no_grad()
def rotate_embeddings(outer: Ends, basis: Tensor) -> None:
    """E <- E Q: the stream starts in the basis Q, (d, n), float64, orthonormal columns."""
    for embedding in outer.embeddings:
        embedding.weight = _parameter(embedding.weight.double() @ basis.to(embedding.weight.device), embedding.weight)
        embedding.embedding_dim = basis.shape[1]


@torch.no_grad()
def rotate_head(outer: Ends, basis: Tensor) -> None:
    """W <- W Q: the head, weight (tokens, d), reads the stream in the basis Q, (d, n)."""
    _read(outer.head, basis)


@torch.no_grad()
def enter(block: nn.Module, half: Half, basis: Tensor) -> None:
    """Readers and shortcut of one half take the stream in a basis: W <- W Q for W (out, d), and S <- Q^T S.

    Until `leave`, the half gives its result in all d old coordinates: there the next basis is chosen.

    Args:
        block: a converted block.
        half: which half of it.
        basis: (d, n), float64, orthonormal columns, in which the stream arrives.
    """
    for name in half.readers:
        _read(block.get_submodule(name), basis)
    shortcut: Tensor = getattr(block, half.shortcut)
    setattr(block, half.shortcut, _parameter(basis.T.to(shortcut.device) @ shortcut.double(), shortcut))


@torch.no_grad()
def leave(block: nn.Module, half: Half, basis: Tensor) -> None:
    """Writer and shortcut of one half give the stream in a basis (d, n): W <- Q^T W, b <- b Q, and S <- S Q."""
    _write(block.get_submodule(half.writer), basis)
    shortcut: Tensor = getattr(block, half.shortcut)
    setattr(block, half.shortcut, _parameter(shortcut.double() @ basis.to(shortcut.device), shortcut))


def _untie(model: Any, head: nn.Linear) -> None:
    model.config.tie_word_embeddings = False
    if hasattr(model, "all_tied_weights_keys"):
        model.all_tied_weights_keys = {}  # what transformers read from the config when the model was built
    head.weight = _parameter(head.weight, head.weight)


def _absorb(parent: nn.Module, name: str, readers: list[Any]) -> None:
    """Gain and bias of a norm go into what reads it: W <- W diag(g), bias <- bias + W b."""
    norm: Any = getattr(parent, name)
    bias = getattr(norm, "bias", None)
    for reader in readers:
        weight = matrix(reader).double()
        if bias is not None:
            shift = weight @ bias.double()
            old = shift.new_zeros(shift.shape) if reader.bias is None else reader.bias.double()
            reader.bias = _parameter(old + shift, reader.weight)
        _set_matrix(reader, weight * norm.weight.double())
    eps = norm.eps if isinstance(norm, nn.LayerNorm) else norm.variance_epsilon
    setattr(parent, name, GainlessRMSNorm(norm.weight.shape[0], eps).train(norm.training))


def _read(module: Any, basis: Tensor) -> None:
    _set_matrix(module, matrix(module).double() @ basis.to(module.weight.device))


def _write(module: Any, basis: Tensor) -> None:
    basis = basis.to(module.weight.device)
    _set_matrix(module, basis.T @ matrix(module).double())
    if module.bias is not None:
        module.bias = _parameter(module.bias.double() @ basis, module.bias)


def _set_matrix(module: Any, weight: Tensor) -> None:
    """Replace the weight of a Linear or Conv1D by one given as (out, in), perhaps of another shape."""
    if isinstance(module, Conv1D):
        module.weight = _parameter(weight.t(), module.weight)
        module.nx, module.nf = module.weight.shape
    else:
        module.weight = _parameter(weight, module.weight)
        module.out_features, module.in_features = module.weight.shape


def _parameter(value: Tensor, like: Any) -> nn.Parameter:
    """A new parameter with storage of its own: autograd remembers the shape of an old one."""
    data = value.detach().to(like.dtype).clone(memory_format=torch.contiguous_format)
    return nn.Parameter(data, requires_grad=like.requires_grad)
