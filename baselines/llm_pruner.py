"""LLM-Pruner: heads and FFN channels that the loss would miss least are cut at once; LoRA then recovers the model.

Source: Ma et al. (arXiv 2305.11627), sections 3.1 to 3.3; authors' code for ratios and for the ends that stay whole.
Equations: g = dL/dw, summed over calibration data. A group is all that must leave together: a head with its rows of
W_Q, W_K, W_V and its columns of W_O, an FFN channel with its rows of W_in (gate and up) and its column of W_out.
    element-wise (`llm_pruner`):       I(group) = sum over its weights of |w g|
    vector-wise (`llm_pruner_vector`): I(group) = sum over its rows and columns of |sum over the row or column of w g|
Of lowest importance in its own layer goes the same share of heads and of channels in every block that is pruned.
Recovery: adapters of rank 8 and alpha 16 (peft) at every projection train alone; merged in the end.
Faithful: groups, first-order importance, sum as aggregation, local ranking, one cut before recovery, rank and alpha of
the recovery, everything else frozen. Of L >= 4 blocks the first max(1, L // 8) and the last max(1, L // 16) stay whole,
which for 32 blocks are the authors' four and two.
Changed: where the other blocks would have to lose more than three quarters, all blocks are pruned. The share is found,
not given: structures go in the order of their relative rank in their layer while they fit, so the size lands within
one channel of the target, and heads, which are coarse, may go in some layers and stay in others. Query heads that
share a key/value head leave together; biases belong to their group. Each layer keeps one head and one channel. The
experiment's calibration data stand for the authors' 10 sequences. Widths are not rounded to width_multiple.
Simplified: no dropout on the adapters (the authors have 0.05); no second-order term (`param_second`, `param_mix`).
The history begins behind the cut, which comes before the first step.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from baselines.calibration import Calibration, accumulate_gradients
from baselines.lora import AdapterTraining
from baselines.method import Budget, TrainingMethod
from baselines.structure_axes import removable
from baselines.structures import choose, cut, structures
from ecospa import ConfigError, EcoSpaConfig, PairKind, coupled_pairs
from ecospa.families import transformer_blocks

RANK = 8
ALPHA = 16
MOST_LOST = 0.75
"""Blocks in the middle lose at most this share before those at the ends are pruned too."""

Aggregation = Literal["element", "vector"]


class LLMPruner(TrainingMethod):
    """Cuts by element-wise Taylor importance before the first step, then trains adapters."""

    name: ClassVar[str] = "llm_pruner"
    title = "LLM-Pruner, element"
    removes = "structures"
    group = "structures by gradients"
    reads_gradients: ClassVar[bool] = False
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, _recovery(self, budget, "element"))


class LLMPrunerVector(TrainingMethod):
    """Cuts by vector-wise Taylor importance before the first step, then trains adapters."""

    name: ClassVar[str] = "llm_pruner_vector"
    title = "LLM-Pruner, vector"
    removes = "structures"
    group = "structures by gradients"
    reads_gradients: ClassVar[bool] = False
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, _recovery(self, budget, "vector"))


def _recovery(method: TrainingMethod, budget: Budget, aggregation: Aggregation) -> AdapterTraining:
    """Adapters for a model that has lost its least important groups, judged by the method's calibration data."""
    config = budget.config()

    def cut_first(model: nn.Module) -> None:
        assert method.calibration is not None  # needs_calibration
        prune(model, method.calibration, config, aggregation)

    return AdapterTraining(lambda model: RANK, ALPHA, budget.seed, train_rest=False, before=cut_first)


def prune(model: nn.Module, calibration: Calibration, config: EcoSpaConfig, aggregation: Aggregation) -> None:
    """Cut a whole model down to a target in place, the same share of heads and channels in every pruned block.

    Args:
        model: a plain model of a known family.
        calibration: batches with labels.
        config: target and scope.
        aggregation: "element" or "vector", see `taylor_importance`.

    Raises:
        ConfigError: the target cannot be reached, or the data has no labels.
        ValueError: an importance is NaN or infinite.
    """
    excess = removable(model, config.target_size, config.target_scope)
    if excess <= 0:
        return
    accumulate_gradients(model, calibration)
    heads, channels = taylor_importance(model, aggregation)
    model.zero_grad(set_to_none=True)
    blocks, block_of = pruned_blocks(model, excess), _blocks(model)
    head_ranks, channel_ranks = (
        {name: relative_rank(name, score) for name, score in scores.items() if block_of[name] in blocks}
        for scores in (heads, channels)
    )
    cut(model, choose(model, head_ranks, channel_ranks, excess))


@torch.no_grad()
def taylor_importance(model: nn.Module, aggregation: Aggregation) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """First-order change of the loss when a group is removed.

    element: I = sum_i |w_i g_i|;  vector: I = sum over rows and columns v of |sum_{i in v} w_i g_i|

    Args:
        model: a plain model with gradients.
        aggregation: "element" or "vector"; a row or column is what one matrix holds of one inner index.

    Returns:
        attention module -> (heads,), and FFN pair -> (channels,), float64.

    Raises:
        ConfigError: a weight has no gradient.

    Source: arXiv 2305.11627, equations 3 to 5 without their second-order terms.
    """
    heads: dict[str, Tensor] = {}
    channels: dict[str, Tensor] = {}
    for pair in coupled_pairs(model):
        for axis in pair.axes:
            weight = model.get_parameter(axis.parameter)
            if weight.grad is None:
                raise ConfigError(f"{axis.parameter} has no gradient; unfreeze it, llm_pruner scores by gradients")
            products = (weight.double() * weight.grad.double()).movedim(axis.axis, 0)
            products = products.reshape(len(products), -1)
            lines = products.abs().sum(1) if aggregation == "element" else products.sum(1).abs()
            found = lines[axis.index.to(lines.device)]  # (groups, width, repeats)
            if pair.kind is PairKind.FFN:
                channels[pair.name] = channels.get(pair.name, 0) + found.sum((0, 2))
            else:
                heads[pair.module] = heads.get(pair.module, 0) + found.sum((1, 2))
    return heads, channels


def relative_rank(name: str, scores: Tensor) -> Tensor:
    """Place of every structure in its own layer, (i + 1) / n for the i-th lowest of n; of equal ones the earlier first.

    Args:
        name: of the layer, for the message.
        scores: (n,).

    Returns:
        (n,), float64, on the CPU: what is at most s belongs to the share s that goes first.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"{name}: an importance is NaN or infinite; look for broken weights or data")
    order = torch.sort(scores.cpu(), stable=True).indices
    places = torch.arange(1, len(order) + 1, dtype=torch.float64, device="cpu")
    return torch.empty_like(places).scatter_(0, order, places / len(order))


def pruned_blocks(model: nn.Module, excess: int) -> list[str]:
    """Names of the blocks that are pruned: without the first and last ones, unless the others would lose too much.

    Args:
        model: the whole model.
        excess: parameters that shall go.
    """
    names = list(transformer_blocks(model))
    count = len(names)
    inner = names[max(1, count // 8) : count - max(1, count // 16)] if count >= 4 else names
    found, block_of = structures(model), _blocks(model)
    counts, costs = {**found.heads, **found.channels}, {**found.head_parameters, **found.channel_parameters}
    inside = [name for name in counts if block_of[name] in inner]
    whole = sum(counts[name] * costs[name] for name in inside)
    most = sum((counts[name] - 1) * costs[name] for name in inside)
    return inner if excess <= min(MOST_LOST * whole, most) else names


def _blocks(model: nn.Module) -> dict[str, str]:
    """Attention module or FFN pair -> its block."""
    return {name: pair.block for pair in coupled_pairs(model) for name in (pair.module, pair.name)}
