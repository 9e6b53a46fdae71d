"""K-OBD: what a Kronecker-factored Fisher says a row or column costs, shared indices of both matrices together.

Source: van der Ouderaa et al. (The LLM Surgeon, arXiv 2312.17244); its variant without correlations between structures
and without weight update, K-OBD, structured and multi-shot.
Equations: y = W x is a projection, W (out, in), g the gradient of the loss w.r.t. y; means are over positions (tokens).
    F ~ G (x) A,  A = E[x x^T],  G = E[g g^T]                             empirical: with the labels of the data
    row r goes:     L_r = 1/2 G_rr W_r: A W_r:^T  = 1/2 E[g_r^2] E[(W x)_r^2]
    column c goes:  L_c = 1/2 A_cc W_:c^T G W_:c  = 1/2 E[x_c^2] E[(W^T g)_c^2]
The right-hand sides are sums that hooks stream, so that no factor is ever stored. g is the gradient of the summed loss:
the mean loss of a batch times its number of predictions, or small batches would count for more.
Faithful: both costs (the second-order change when a structure goes and nothing else moves), factors estimated
independently of each other, one ranking over all layers, re-estimation from the same data before every shot, shots
linear in size, weights that stay do not change. The paper rounds no widths, so nothing is rounded to width_multiple.
Changed: what goes is a shared inner index of a coupled pair, or a rotary couple of them, at the sum of the costs of all
rows and columns that leave with it (for QK the rows of both projections; with grouped queries those of every query
head). The paper removes rows and columns of single matrices. All heads of a layer keep the same width: a step takes the
cheapest index of every head. Steps are ranked by cost per parameter, because pairs differ in size; the released code
ranks costs as such. Every pair keeps one index or couple. 5 shots instead of its 40.
Simplified: a bias that leaves with its row adds no cost (the released code counts it as one more column of W).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from baselines.block_walk import matrix
from baselines.calibration import Calibration, batch_loss
from baselines.method import Budget, TrainingMethod, architecture
from baselines.posttraining import PostTraining
from ecospa import ConfigError, CoupledPair, SparsityPlan, apply_plan, coupled_pairs
from ecospa.pairs import pair_matrices, unit_positions
from ecospa.plan import index_parameters

SHOTS = 5
"""Number of times that the Fisher is estimated and a part of the excess is cut."""

_IGNORED = -100  # label of what the losses of transformers do not predict
_SHIFTED = ("gpt2", "llama")  # their language models predict the next token: the first label is not used


class Surgeon(TrainingMethod):
    """K-OBD after training: shared indices of lowest cost per parameter go, in several shots."""

    name: ClassVar[str] = "surgeon"
    title = "K-OBD"
    removes = "structures"
    group = "structures by gradients"
    stage: ClassVar = "one-shot"
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, reachable=most_removable))

    def accept(self, model: nn.Module, calibration: Any) -> None:
        """Refuse what every method refuses, and data without labels, before a run is spent on it."""
        super().accept(model, calibration)
        assert self.calibration is not None  # needs_calibration
        if any("labels" not in batch for batch in self.calibration.batches):
            raise ConfigError(f"{self.name}: calibration has no 'labels'; the Fisher needs them in every batch")

    def _compress(self, model: nn.Module, excess: int) -> None:
        assert self.calibration is not None  # needs_calibration
        gone = 0
        for shot in range(1, SHOTS + 1):
            # what a shot could not take because no step was that small, the next one may take
            if (removable := excess * shot // SHOTS - gone) > 0:
                plan = cheapest(model, structure_costs(model, self.calibration), removable)
                gone += plan.parameters_before - plan.parameters_after
                apply_plan(model, plan)


def row_costs(weight: Tensor, input_moment: Tensor, gradient_moment: Tensor) -> Tensor:
    """Increase of the loss, to second order, when one row is removed and nothing else changes.

    L_r = 1/2 G_rr W_r: A W_r:^T

    Args:
        weight: W (out, in).
        input_moment: A = E[x x^T], (in, in).
        gradient_moment: G = E[g g^T], (out, out), in squared loss per squared output.

    Returns:
        (out,), in the unit of the loss.

    Raises:
        ValueError: a moment does not fit the weight.

    Source: arXiv 2312.17244, K-OBD.
    """
    _check_shapes(weight, input_moment, gradient_moment)
    return ((weight @ input_moment) * weight).sum(1) * gradient_moment.diagonal() / 2


def column_costs(weight: Tensor, input_moment: Tensor, gradient_moment: Tensor) -> Tensor:
    """Increase of the loss, to second order, when one column is removed and nothing else changes.

    L_c = 1/2 A_cc W_:c^T G W_:c

    Args, Raises, Source: as for `row_costs`.

    Returns:
        (in,), in the unit of the loss.
    """
    _check_shapes(weight, input_moment, gradient_moment)
    return ((gradient_moment @ weight) * weight).sum(0) * input_moment.diagonal() / 2


def projection_costs(model: nn.Module, calibration: Calibration) -> dict[tuple[str, str], Tensor]:
    """Costs of all rows and columns that belong to a coupled pair, from one pass over the data.

    L_r = 1/2 E[g_r^2] E[(W x)_r^2],  L_c = 1/2 E[x_c^2] E[(W^T g)_c^2], with sums in float64

    Args:
        model: the model; in evaluation mode meanwhile, its `.grad` is not touched.
        calibration: batches with labels, on the model's device.

    Returns:
        (projection, "rows" or "columns") -> float64 (out,) or (in,), in the unit of the loss.

    Raises:
        ConfigError: a batch has no labels, or none that is predicted.

    Source: arXiv 2312.17244, K-OBD.
    """
    wanted = dict.fromkeys(place for pair in coupled_pairs(model) for place, _ in _places(model, pair))
    sums = {place: _Sums(model.get_submodule(place[0]), place[1]) for place in wanted}
    was_training = model.training
    model.eval()
    try:
        with ExitStack() as hooks, torch.enable_grad():
            for own in sums.values():
                hooks.callback(own.module.register_forward_hook(own.see).remove)
            for batch in calibration.batches:
                loss = batch_loss(model, batch) * _predictions(model, batch["labels"])
                seen = [own.output for own in sums.values()]
                # only gradients of outputs: those of the weights are not needed, and cost a third of the time
                for own, gradient in zip(sums.values(), torch.autograd.grad(loss, seen), strict=True):
                    own.learn(gradient)
    finally:
        model.train(was_training)
    return {place: own.costs() for place, own in sums.items()}


def structure_costs(model: nn.Module, calibration: Calibration) -> dict[str, Tensor]:
    """Cost of every unit of every pair: the sum over the rows and columns that leave with it.

    Args, Raises, Source: as for `projection_costs`. Changed: see the module.

    Returns:
        pair -> float64 (groups, units), in the unit of the loss.
    """
    single, costs = projection_costs(model, calibration), {}
    for pair in coupled_pairs(model):
        each: Any = sum(single[place].cpu()[index].sum(2) for place, index in _places(model, pair))
        costs[pair.name] = each.view(pair.groups, pair.unit, pair.units).sum(1)
    return costs


def cheapest(model: nn.Module, costs: Mapping[str, Tensor], removable: int) -> SparsityPlan:
    """Steps of lowest cost per parameter go, over all pairs, while they fit; one step is one unit of every group.

    cost of the k-th step of a pair = sum over groups of the k-th lowest cost

    Args:
        model: the model.
        costs: pair -> (groups, units), of every pair.
        removable: parameters that may go at most; what is left over is less than any step that could still go.

    Returns:
        What stays, at least one unit per group; of equal steps the earlier pair and the earlier unit goes first.

    Raises:
        ValueError: a cost is NaN or infinite.
    """
    pairs = {pair.name: pair for pair in coupled_pairs(model)}
    steps, orders = [], {}
    for name, pair in pairs.items():
        if not bool(torch.isfinite(costs[name]).all()):
            raise ValueError(f"{name}: a cost is NaN or infinite; look for broken weights or data")
        size = pair.unit * index_parameters(model, pair)
        ranked, orders[name] = costs[name].cpu().sort(dim=1, stable=True)
        steps += [(cost / size, name, size) for cost in ranked.sum(0)[:-1].tolist()]
    gone = dict.fromkeys(pairs, 0)
    for _, name, size in sorted(steps, key=lambda step: step[0]):
        if size <= removable:
            gone[name] += 1
            removable -= size
    stays = {name: orders[name][:, count:].sort(dim=1).values for name, count in gone.items()}
    return SparsityPlan.build(model, {name: unit_positions(pairs[name], units) for name, units in stays.items()})


def most_removable(model: nn.Module) -> int:
    """Parameters that go when every pair keeps one unit."""
    return sum((pair.width - pair.unit) * index_parameters(model, pair) for pair in coupled_pairs(model))


class _Sums:
    """Inputs and gradients of one projection, squared and summed over positions, for its rows or columns."""

    def __init__(self, module: Any, side: str) -> None:
        self.module, self.side = module, side
        self.output: Any = None
        self._forward: Tensor | float = 0.0
        self._backward: Tensor | float = 0.0
        self._positions = 0

    def see(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Forward hook: W x without the bias, or x."""
        if not output.requires_grad:
            output.requires_grad_()  # a frozen model can be judged too
        self.output = output
        value = inputs[0] if self.side == "columns" else output if module.bias is None else output - module.bias
        self._forward = self._forward + value.detach().flatten(0, -2).double().square().sum(0)
        self._positions += value[..., 0].numel()

    def learn(self, gradient: Tensor) -> None:
        """The gradient w.r.t. the output: g, or W^T g."""
        self.output = None
        value = gradient @ matrix(self.module) if self.side == "columns" else gradient
        self._backward = self._backward + value.detach().flatten(0, -2).double().square().sum(0)

    def costs(self) -> Tensor:
        """1/2 times the product of both means."""
        return torch.as_tensor(self._forward * self._backward / (2 * self._positions**2))


def _places(model: nn.Module, pair: CoupledPair) -> Iterator[tuple[tuple[str, str], Tensor]]:
    """Projection and side of every matrix of a pair, with the positions of its indices there."""
    for _, axis in pair_matrices(pair, dict(model.named_parameters())):
        name = axis.parameter.removesuffix(".weight")
        outputs = 1 if isinstance(model.get_submodule(name), Conv1D) else 0
        yield (name, "rows" if axis.axis == outputs else "columns"), axis.index


def _predictions(model: nn.Module, labels: Tensor) -> int:
    """Number of terms that the mean loss of a batch averages."""
    if architecture(model) in _SHIFTED and labels.ndim > 1:
        labels = labels[:, 1:]
    if not (count := int((labels != _IGNORED).sum())):
        raise ConfigError(f"calibration has a batch with labels of {_IGNORED} alone, which predict nothing; drop it")
    return count


def _check_shapes(weight: Tensor, input_moment: Tensor, gradient_moment: Tensor) -> None:
    moments = {"gradient_moment": gradient_moment, "input_moment": input_moment}
    for (name, moment), width in zip(moments.items(), weight.shape, strict=True):
        if moment.shape != (width, width):
            raise ValueError(f"{name} has shape {tuple(moment.shape)}; for this weight it must be {(width, width)}")
