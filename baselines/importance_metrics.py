"""EcoSpa with everything as it is but the importance by which an event chooses its pairs.

Source: the ablation that empirical Fisher information invites; the paper's summary gives the metric and no comparison.
`ecospa` itself is the row of Fisher. The measures are those of baselines.pair_metrics.
Equations, with W a matrix of the pair, and I(pair) the mean over its matrices as in `ecospa`:
    importance_gradient     I(W) = mean over steps of ||dL/dW||_1 / |W|
    importance_weight       I(W) = ||W||_F / sqrt(|W|)
    importance_taylor       I(W) = mean over steps of mean_ij |W_ij dL/dW_ij|  (Molchanov et al., arXiv 1611.06440)
    importance_activation   I(pair) = root mean square of what flows between the matrices
    importance_entropy      I(pair) = 1 - entropy of its attention / the largest possible; FFN pairs: see below
    importance_random       I(pair) ~ U(0, 1), drawn anew at every event
Faithful: index scores ||W1[:, j]|| * ||W2[j, :]||, K, theta, widths, size curve, surgery and optimizer state are those
of `ecospa`, so only the ranking of pairs differs.
Changed: attention has no entropy in a feed-forward pair. These are ranked by Fisher information among themselves, and
the two rankings are merged by rank, so that an event takes from both kinds in proportion. Query/key and value/output
pair of a layer share its attention and stand together.
Simplified: activations and attention are measured at every event on the first 16 sequences of the calibration data.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from baselines.calibration import Calibration, as_calibration
from baselines.curve import Event, SizeCurve
from baselines.method import SUITE_FAMILIES, Budget, TrainingMethod
from baselines.pair_metrics import (
    AbsoluteGradient,
    attention_focuses,
    inner_activations,
    ranks,
    weight_norms,
)
from ecospa import CoupledEstimator, coupled_pairs
from ecospa.pairs import PairKind
from ecospa.scaled_importance import FirstOrderTaylor


class GradientImportance(TrainingMethod):
    """Pairs with the smallest mean absolute gradient are cut."""

    name: ClassVar[str] = "importance_gradient"
    title = "gradient"
    removes = "structures"
    group = "importance metric"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, estimator=AbsoluteGradient))


class TaylorImportance(TrainingMethod):
    """Pairs whose entries change the loss least to first order are cut."""

    name: ClassVar[str] = "importance_taylor"
    title = "Taylor, |w g|"
    removes = "structures"
    group = "importance metric"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, estimator=FirstOrderTaylor))


class WeightImportance(TrainingMethod):
    """Pairs with the smallest weights are cut."""

    name: ClassVar[str] = "importance_weight"
    title = "weight"
    removes = "structures"
    group = "importance metric"
    reads_gradients: ClassVar[bool] = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, lambda event: weight_norms(event.state.model)))


class ActivationImportance(TrainingMethod):
    """Pairs through which the smallest values flow are cut."""

    name: ClassVar[str] = "importance_activation"
    title = "activation"
    removes = "structures"
    group = "importance metric"
    needs_calibration: ClassVar[bool] = True
    reads_gradients: ClassVar[bool] = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, lambda event: inner_activations(event.state.model, _data(event))))


class EntropyImportance(TrainingMethod):
    """Pairs of the most diffuse attention are cut, and as large a share of the feed-forward pairs by Fisher."""

    name: ClassVar[str] = "importance_entropy"
    title = "attention entropy"
    removes = "structures"
    group = "importance metric"
    architectures: ClassVar[frozenset[str]] = SUITE_FAMILIES - {"timm_vit"}  # its attention gives no weights
    needs_calibration: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, _focus_and_fisher, estimator=CoupledEstimator))


class RandomImportance(TrainingMethod):
    """Random pairs are cut, at their indices of smallest score."""

    name: ClassVar[str] = "importance_random"
    title = "random"
    removes = "structures"
    group = "importance metric"
    reads_gradients: ClassVar[bool] = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, SizeCurve(budget, self._draw))

    def _draw(self, event: Event) -> dict[str, float]:
        # seed and step alone decide, so that a resumed run draws what an uninterrupted one does
        generator = torch.Generator(device="cpu").manual_seed(self.budget.seed * 1_000_003 + event.state.step)
        return {pair.name: float(torch.rand((), generator=generator)) for pair in coupled_pairs(event.state.model)}


def _focus_and_fisher(event: Event) -> dict[str, float]:
    assert event.estimator is not None  # this curve estimates
    fisher, focus = event.estimator.importances(), attention_focuses(event.state.model, _data(event))
    kinds = {pair.name: pair for pair in coupled_pairs(event.state.model)}
    hidden = ranks({name: fisher[name] for name, pair in kinds.items() if pair.kind is PairKind.FFN})
    attention = ranks(focus)
    return {name: hidden[name] if name in hidden else attention[pair.module] for name, pair in kinds.items()}


def _data(event: Event) -> Calibration:
    data: Any = event.state.calibration
    return as_calibration(data)
