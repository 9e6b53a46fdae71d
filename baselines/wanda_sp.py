"""Wanda-sp: Wanda's weight times activation, summed up to whole heads and FFN channels; the competitor that FLAP names.

Source: An et al. (arXiv 2312.11983), whose abstract calls it the extension of Wanda to structured pruning; metric of
Sun et al. (Wanda, arXiv 2306.11695). What it does in detail is taken from the code released with FLAP.
Equations: x is the input of W (W_O of an attention, W_down of an FFN), n a calibration token, j an input channel.
    score of an FFN channel j = ||x_j||_2 * sum_i |W_ij|,  ||x_j||_2^2 = sum_n x_nj^2
    score of a head = sum of that over its channels
In every layer the same share s of the heads, floor(s H), and of the channels of lowest score goes.
Faithful: metric, uniform share, no compensation, weights that stay do not change; block by block, each scored (both of
its matrices at once) on what the cut blocks before it give. The released code takes means over rows where sums stand
here: the order within a matrix is the same.
Changed: heads are coarse. A layer loses the share s of its heads' and channels' parameters together: the heads are
rounded down and channels make up for them in the same layer, or one more head goes where channels do not suffice, so
that the size lands within 1 %; what rounding leaves over is taken channel by channel from the first layers. Query heads
that share a key/value head leave together. Each layer keeps one head and one channel. Widths are not rounded to
width_multiple.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.block_walk import matrix, walk_blocks
from baselines.flap import local_name, output_matrices
from baselines.method import Budget, TrainingMethod
from baselines.posttraining import PostTraining
from baselines.structures import Kept, cut, most_removable, structures


class WandaSp(TrainingMethod):
    """Structured Wanda after training, the same share in every layer."""

    name: ClassVar[str] = "wanda_sp"
    title = "Wanda-sp"
    removes = "structures"
    group = "structures by activations or weights"
    stage: ClassVar = "one-shot"
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, reachable=most_removable))

    def _compress(self, model: nn.Module, excess: int) -> None:
        assert self.calibration is not None  # needs_calibration
        outputs, shares = output_matrices(model), uniform_shares(model, excess)
        heads = structures(model).heads
        for step in walk_blocks(model, self.calibration):
            inside = {name: output for name, output in outputs.items() if output.block == step.name}
            locally = {name: local_name(output) for name, output in inside.items()}
            squares, _ = step.summed(locally.values(), lambda inputs: inputs.double().square().sum(0))
            stays = {}
            for name, output in inside.items():
                score = wanda_score(matrix(model.get_submodule(output.projection)), squares[locally[name]].sqrt())
                own = score[output.inputs.to(score.device)].sum(1)
                if shares[name]:
                    stays[name] = _best(name, own, len(own) - shares[name])
            cut(
                model,
                Kept(
                    {name: kept for name, kept in stays.items() if name in heads},
                    {name: kept for name, kept in stays.items() if name not in heads},
                ),
            )


def wanda_score(weight: Tensor, norms: Tensor) -> Tensor:
    """Wanda's metric of single weights, summed over the outputs of an input channel.

    score_j = sum_i |W_ij| * norms_j

    Args:
        weight: (out, in).
        norms: (in,), Euclidean norms of the inputs over calibration tokens.

    Returns:
        (in,), float64.

    Source: arXiv 2306.11695, equation 1; summed as in arXiv 2312.11983's Wanda-sp.
    """
    return weight.double().abs().sum(0) * norms.double()


@dataclass(frozen=True)
class _Layer:
    """Names of a layer's attention and FFN pair, how many heads and channels they have, and what one costs."""

    attention: str
    ffn: str
    heads: int
    channels: int
    head_cost: int
    channel_cost: int

    @property
    def cost(self) -> int:
        return self.heads * self.head_cost + self.channels * self.channel_cost


def uniform_shares(model: nn.Module, removable: int) -> dict[str, int]:
    """How many heads and channels every layer loses, the same share s in all.

    s = removable / (parameters of all heads and channels); a layer loses floor(s heads) heads, or more where its
    channels could not make up for the rest, and channels for what is left of its share.

    Args:
        model: the model.
        removable: parameters that may go at most; what is left over is less than any channel that could still go.

    Returns:
        attention module or FFN pair -> how many of its heads or channels go; one of each always stays.

    Source: arXiv 2312.11983, Wanda-sp. Changed: see the module.
    """
    layers = _layers(model)
    total = sum(layer.cost for layer in layers)
    shares: dict[str, int] = {}
    for layer in layers:
        quota = removable * layer.cost // total
        rest = quota - (layer.channels - 1) * layer.channel_cost  # more than all channels can give
        heads = max(removable * layer.heads // total, -(-rest // layer.head_cost))
        heads = min(heads, layer.heads - 1, quota // layer.head_cost)
        channels = (quota - heads * layer.head_cost) // layer.channel_cost
        shares |= {layer.attention: heads, layer.ffn: min(channels, layer.channels - 1)}
    _hand_out(removable, layers, shares)
    return shares


def _layers(model: nn.Module) -> list[_Layer]:
    found = structures(model)
    names: dict[str, list[str]] = {}
    for name, output in output_matrices(model).items():
        names.setdefault(output.block, []).append(name)
    return [
        _Layer(
            attention, ffn, found.heads[attention], found.channels[ffn],
            found.head_parameters[attention], found.channel_parameters[ffn],
        )
        for attention, ffn in names.values()
    ]  # fmt: skip


def _hand_out(removable: int, layers: Iterable[_Layer], shares: dict[str, int]) -> None:
    """Take what rounding left over, one channel per layer and round, while one fits."""
    layers = list(layers)
    left = removable - sum(
        shares[layer.attention] * layer.head_cost + shares[layer.ffn] * layer.channel_cost for layer in layers
    )
    fits = True
    while fits:
        fits = False
        for layer in layers:
            if layer.channel_cost <= left and shares[layer.ffn] < layer.channels - 1:
                shares[layer.ffn] += 1
                left -= layer.channel_cost
                fits = True


def _best(name: str, scores: Tensor, count: int) -> Tensor:
    """Ascending numbers of the `count` highest scores; of equal ones the earlier goes, as in `choose`."""
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"{name}: a score is NaN or infinite; look for broken weights or data")
    order = torch.sort(scores.cpu(), stable=True).indices
    return order[len(order) - count :].sort().values
