"""FLAP: what hardly varies goes first, and its mean lives on in a bias. Whole heads and FFN channels, no retraining.

Source: An et al. (arXiv 2312.11983); the variant that its own experiments use: metric WIFV, adaptive structure of
attention and FFN together, baseline bias compensation.
Equations: x is the input of W (W_O of an attention, W_down of an FFN), n a calibration token, j an input channel.
    S_j  = Var_n(x_nj) * sum_i W_ij^2                           fluctuation of a channel, weighted by its column
    S'_j = (S_j - mean_k S_k) / std_k S_k                       over the channels of this matrix
    score of an FFN channel = S'_j; score of a head = mean of S'_j over its channels
    b   += W[:, removed] mean_n(x_n[removed])                   so that the mean of W x + b stays what it was
Lowest scores go first, heads and channels of all layers in one ranking, until the budget's parameters are removed; a
head counts with all that leaves with it (the paper counts a head of LLaMA as 512 / 3 channels for the same reason).
Faithful: statistics of the dense model in one walk, because the ranking needs all layers; no weight that stays changes.
Changed: query heads that share a key/value head leave together, and the score is the mean over all of their channels
(the paper's models have no groups). Each layer keeps one head and one channel. The released code squares the metric of
attention before it is standardised, and its running variance divides sums over tokens by numbers of sequences; here
both are as in the equations. Both standard deviations are of the sample (n - 1). Widths are not rounded to
width_multiple. Where an architecture has no bias (LLaMA), the new one counts into the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.block_walk import matrix, walk_blocks
from baselines.calibration import Calibration
from baselines.method import Budget, TrainingMethod
from baselines.posttraining import PostTraining
from baselines.structures import Kept, choose, cut, most_removable, structures
from ecospa import PairKind, coupled_pairs
from ecospa.surgery import add_biases


class Flap(TrainingMethod):
    """Fluctuation-based adaptive structured pruning after training."""

    name: ClassVar[str] = "flap"
    title = "FLAP"
    removes = "structures"
    group = "structures by activations or weights"
    stage: ClassVar = "one-shot"
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, reachable=_most_removable))

    def _compress(self, model: nn.Module, excess: int) -> None:
        assert self.calibration is not None  # needs_calibration
        outputs = output_matrices(model)
        moments = input_moments(model, outputs, self.calibration)
        scores = {}
        for name, output in outputs.items():
            weight = matrix(model.get_submodule(output.projection))
            scores[name] = output.mean(standardise(fluctuation(weight, moments[name].variance)))
        kept = _choose(model, outputs, scores, excess)
        biases = {}
        for name, stays in {**kept.heads, **kept.channels}.items():
            weight = matrix(model.get_submodule(outputs[name].projection))
            biases[outputs[name].projection] = compensation(weight, moments[name].mean, outputs[name].gone(stays))
        cut(model, kept)
        add_biases(model, biases)


@dataclass(frozen=True, eq=False)
class OutputMatrix:
    """The matrix through which the structures of one module act: W_O of an attention, W_down of an FFN.

    Attributes:
        block: dotted name of the block.
        projection: dotted name of the projection.
        inputs: int64 (structures, channels), input channels of the projection that belong to a structure: all of its
            query heads' for a key/value head, one for an FFN channel.
    """

    block: str
    projection: str
    inputs: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Mean of a value per input channel over the channels of every structure."""
        return values[self.inputs.to(values.device)].mean(1)

    def gone(self, stays: Tensor) -> Tensor:
        """True at the input channels of the structures that do not stay."""
        gone = torch.ones(self.inputs.numel(), dtype=torch.bool, device="cpu")
        gone[self.inputs[stays].flatten()] = False
        return gone


def output_matrices(model: nn.Module) -> dict[str, OutputMatrix]:
    """W_O of every attention and W_down of every FFN, under the names of `structures`, in the order of the blocks."""
    found = {}
    for pair in coupled_pairs(model):
        if pair.kind is not PairKind.QK:
            (axis,) = pair.right
            projection = axis.parameter.removesuffix(".weight")
            if pair.kind is PairKind.VO:
                found[pair.module] = OutputMatrix(pair.block, projection, axis.index.flatten(1))
            else:
                found[pair.name] = OutputMatrix(pair.block, projection, axis.index.view(-1, 1))
    return found


class Moments:
    """Mean and variance of the inputs of a projection, batch by batch: pairwise update of Chan et al., in float64.

    Attributes:
        count: tokens so far.
        mean: (in,), baseline of every channel.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros(())
        self._squares: Tensor = torch.zeros(())

    def update(self, inputs: Tensor) -> None:
        """Add a batch: deviations from means, because squares of large means would drown the variance."""
        inputs = inputs.double()
        count, mean = len(inputs), inputs.mean(0)
        total = self.count + count
        difference = mean - self.mean.to(mean)
        between = difference.square() * (self.count * count / total)
        self._squares = self._squares.to(mean) + (inputs - mean).square().sum(0) + between
        self.mean = self.mean.to(mean) + difference * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """(in,), sum of squared deviations over count - 1."""
        return self._squares / max(1, self.count - 1)


def input_moments(
    model: nn.Module, outputs: Mapping[str, OutputMatrix], calibration: Calibration
) -> dict[str, Moments]:
    """Moments of the inputs of all `outputs` under their names, over all tokens of the calibration data."""
    moments = {name: Moments() for name in outputs}
    for step in walk_blocks(model, calibration):
        inside = {name: output for name, output in outputs.items() if output.block == step.name}
        step.observe({local_name(output): moments[name].update for name, output in inside.items()})
    return moments


def local_name(output: OutputMatrix) -> str:
    """Name of the projection inside its block."""
    return output.projection.removeprefix(f"{output.block}.")


def fluctuation(weight: Tensor, variance: Tensor) -> Tensor:
    """How much the output loses when an input channel is replaced by its mean.

    S_j = variance_j * sum_i W_ij^2

    Args:
        weight: (out, in).
        variance: (in,), variance of the inputs over calibration tokens.

    Returns:
        (in,), float64, at least 0.

    Source: arXiv 2312.11983, weighted input feature variance.
    """
    return variance.double() * weight.double().square().sum(0)


def standardise(metric: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1, so that matrices of different scales can be ranked together.

    S'_j = (S_j - mean_k S_k) / sqrt(sum_k (S_k - mean)^2 / (in - 1)); zero where all channels are alike.

    Args:
        metric: (in,), fluctuation of the input channels of one matrix.

    Returns:
        (in,), NaN where the metric is.

    Source: arXiv 2312.11983, adaptive structure search.
    """
    centred = metric - metric.mean()
    spread = (centred.square().sum() / max(1, len(metric) - 1)).sqrt()
    return centred if float(spread) == 0 else centred / spread


def compensation(weight: Tensor, mean: Tensor, gone: Tensor) -> Tensor:
    """Bias that stands for removed input channels: what they contribute on average.

    W[:, gone] mean[gone]

    Args:
        weight: (out, in), before the cut.
        mean: (in,), mean of the inputs over calibration tokens.
        gone: (in,), True at channels that are removed.

    Returns:
        (out,), float64.

    Source: arXiv 2312.11983, baseline bias compensation.
    """
    gone = gone.to(weight.device)
    return weight[:, gone].double() @ mean.double()[gone]


def _choose(model: nn.Module, outputs: Mapping[str, OutputMatrix], scores: Mapping[str, Tensor], excess: int) -> Kept:
    """What stays, when biases that have to be made eat into what was removed."""
    heads = {name: value for name, value in scores.items() if name in structures(model).heads}
    channels = {name: value for name, value in scores.items() if name not in heads}
    made = _new_biases(model, outputs, scores) if excess else 0
    while True:
        kept = choose(model, heads, channels, excess + made)
        needed = _new_biases(model, outputs, {**kept.heads, **kept.channels})
        if needed >= made:
            return kept
        made = needed  # layers that stay whole need no bias: less may go


def _new_biases(model: nn.Module, outputs: Mapping[str, OutputMatrix], changed: Mapping[str, Any]) -> int:
    """Parameters of the biases that must be made when these modules lose structures."""
    projections: list[Any] = [model.get_submodule(outputs[name].projection) for name in changed]
    return sum(matrix(projection).shape[0] for projection in projections if projection.bias is None)


def _most_removable(model: nn.Module) -> int:
    found = structures(model)
    changed = {name: count for name, count in {**found.heads, **found.channels}.items() if count > 1}
    return most_removable(model) - _new_biases(model, output_matrices(model), changed)
