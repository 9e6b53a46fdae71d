"""Parameters, FLOPs and bytes of a model, or of a plan that has not been applied (meta device too).

One multiplication and one addition are two FLOPs; norms, softmax and activations are left out, as is usual.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ecospa.config import TargetScope
from ecospa.families import coupled_pairs, transformer_blocks
from ecospa.pairs import CoupledPair
from ecospa.plan import SparsityPlan, axis_parameters
from ecospa.wrappers import unwrapped

_STATE_TENSORS = {"adamw": 2, "adam": 2, "amsgrad": 3, "sgd_momentum": 1, "sgd": 0}


def parameters(model: nn.Module, scope: TargetScope = "parameters", plan: SparsityPlan | None = None) -> int:
    """Number of parameters, tied ones once.

    Args:
        model: the model.
        scope: "parameters" counts everything, "blocks" what lies inside the transformer blocks.
        plan: count as if this plan had been applied.

    Returns:
        Number of parameters.
    """
    whole = sum(parameter.numel() for parameter in model.parameters())
    removed = 0 if plan is None else plan.parameters_before - plan.parameters_after
    if scope == "parameters":
        return whole - removed
    inside = {id(p): p for block in transformer_blocks(model).values() for p in block.parameters()}
    return sum(parameter.numel() for parameter in inside.values()) - removed


def forward_flops(model: nn.Module, batch: int, sequence: int, plan: SparsityPlan | None = None) -> int:
    """FLOPs of one forward pass.

    2 * tokens * (entries of every matrix that multiplies a token)
    + 2 * tokens * sequence * heads * (query/key width + value width) per attention

    Args:
        model: the model; a convolution counts once per token, an embedding look-up nothing, and of a mixture of
            experts those that are chosen for a token.
        batch: sequences or images.
        sequence: tokens per sequence (patches plus class tokens for images).
        plan: count as if this plan had been applied.

    Returns:
        FLOPs. Causal attention counts the whole score matrix, which is what plain kernels compute.
    """
    model, tokens = unwrapped(model), batch * sequence
    matrices = sum(_token_matrix_entries(model, module) for module in model.modules())
    widths = plan.widths_after() if plan is not None else {}
    flops = 2 * tokens * matrices
    for pair in coupled_pairs(model):
        width = widths.get(pair.name, pair.width)
        flops += 2 * tokens * sequence * pair.query_heads * pair.width
        flops -= (pair.width - width) * flops_per_index(model, pair, batch, sequence)
    return flops


def flops_per_index(model: nn.Module, pair: CoupledPair, batch: int, sequence: int) -> int:
    """FLOPs of one forward pass that leave with one index of a pair's width.

    2 * tokens * (its entries in matrices + sequence * query heads, if it is part of an attention)

    Args:
        model: the model of the pair.
        pair: the pair.
        batch: sequences or images.
        sequence: tokens per sequence.
    """
    model = unwrapped(model)
    entries = _matrix_entries_per_index(model, pair)
    return 2 * batch * sequence * (entries + sequence * pair.query_heads)


def training_flops(model: nn.Module, batch: int, sequence: int, plan: SparsityPlan | None = None) -> int:
    """FLOPs of one training step: forward plus twice that for the two products of the backward pass."""
    return 3 * forward_flops(model, batch, sequence, plan)


def memory_bytes(model: nn.Module, plan: SparsityPlan | None = None, optimizer: str = "adamw") -> Mapping[str, int]:
    """Bytes of weights, gradients and optimizer state; activations depend on the batch and are not counted.

    Args:
        model: the model; its dtypes count.
        plan: count as if this plan had been applied.
        optimizer: "adamw", "adam", "amsgrad", "sgd_momentum" or "sgd"; state has the dtype of its parameter.

    Returns:
        {"weights", "gradients", "optimizer", "total"} in bytes.

    Raises:
        ValueError: the optimizer is not known.
    """
    model = unwrapped(model)
    parts = {id(p): (p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()}
    widths = {} if plan is None else plan.widths_after()
    for pair in coupled_pairs(model) if widths else ():
        gone = pair.width - widths[pair.name]
        for axis in pair.axes:
            parameter = model.get_parameter(axis.parameter)
            removed = gone * axis_parameters(parameter, axis) * parameter.element_size()
            size, trains = parts[id(parameter)]
            parts[id(parameter)] = (size - removed, trains)
    weights = sum(size for size, _ in parts.values())
    trained = sum(size for size, trains in parts.values() if trains)
    state = state_tensors(optimizer) * trained
    return {"weights": weights, "gradients": trained, "optimizer": state, "total": weights + trained + state}


def state_tensors(optimizer: str) -> int:
    """Tensors as large as the parameter that an optimizer keeps for each.

    Raises:
        ValueError: the optimizer is not known.
    """
    if optimizer not in _STATE_TENSORS:
        raise ValueError(f"optimizer is {optimizer!r}; choose one of {', '.join(_STATE_TENSORS)}")
    return _STATE_TENSORS[optimizer]


def _token_matrix_entries(model: nn.Module, module: nn.Module) -> int:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter):
        return sum(_entries_per_token(model, part) for part in module.parameters(recurse=False) if part.ndim == 3)
    return 0 if isinstance(module, nn.Embedding) or weight.ndim < 2 else weight.numel()


def _entries_per_token(model: nn.Module, experts: Tensor) -> int:
    """Entries of a stack of experts that one token meets: those of the experts that its router chooses for it."""
    chosen = getattr(getattr(model, "config", None), "num_experts_per_tok", None) or experts.shape[0]
    return int(experts.numel() * chosen // experts.shape[0])


def _matrix_entries_per_index(model: nn.Module, pair: CoupledPair) -> int:
    entries = 0
    for axis in pair.axes:
        parameter = model.get_parameter(axis.parameter)
        if parameter.ndim > 1:
            met = _entries_per_token(model, parameter) if parameter.ndim == 3 else parameter.numel()
            entries += axis.index.shape[0] * axis.index.shape[2] * (met // parameter.shape[axis.axis])
    return entries
