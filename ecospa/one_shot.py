"""plan_shrink: the plan that brings a model to a size at once, without training (paper, all rounds at once)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ecospa.config import ConfigError, EcoSpaConfig, RankedBy, RelativeTo, SelectWithin, TargetScope
from ecospa.families import coupled_pairs
from ecospa.pairs import CoupledPair
from ecospa.plan import SparsityPlan
from ecospa.sparsifier import CoupledSparsifier, Scorer
from ecospa.width_rule import WidthRule
from ecospa.wrappers import refuse_unsupported

logger = logging.getLogger(__name__)


def plan_shrink(
    model: nn.Module,
    target_size: float = 0.5,
    *,
    target_scope: TargetScope = "parameters",
    width_multiple: int | Literal["auto"] | WidthRule = 8,
    min_width: int | None = None,
    top_k: float = 1.0,
    importance_threshold: float = 0.9,
    importances: Mapping[str, float] | None = None,
    scores: Mapping[str, Float[Tensor, "groups units"]] | None = None,
    relative_to: RelativeTo = "dense",
    select_within: SelectWithin = "all",
    min_share: float = 0.0,
    ranking: RankedBy = "pairs",
) -> SparsityPlan:
    """One-shot plan that brings a model to a size at once.

    Args:
        model: model of a supported family.
        target_size: c, share that is left.
        target_scope: share of all "parameters", or of the "blocks" alone.
        width_multiple: widths stay multiples of this many indices; "auto" or a WidthRule as for EcoSpaConfig.
        min_width: no pair becomes narrower; None means the multiple of its kind.
        top_k: share of the pairs that carry the cut, the least important first; 1 spreads it over all.
        importance_threshold: theta of each of the rounds that the cut is made of.
        importances: importance of every pair, such as `CoupledEstimator.importances()`; None ranks all equally.
        scores: index scores of every pair; None takes the norm products of the weights.
        relative_to: the target is a share of the "dense" model, however often it has been cut, or of the "current" one.
        select_within, min_share, ranking: as for EcoSpaConfig; "units" needs `scores` that are effects on the loss.

    Returns:
        The plan; the size lands within one width step above the target. It is empty, and its reason says so, where the
        model is there already. Frozen pairs are cut like the others.

    Raises:
        ConfigError: a value is out of range, or the target cannot be reached.
        UnsupportedModelError: the model cannot be cut, or its weights are not here.

    Source: paper, coupled sparsification, all rounds at once.
    """
    config = EcoSpaConfig(
        top_k=top_k, importance_threshold=importance_threshold, target_size=target_size, target_scope=target_scope,
        width_multiple=width_multiple, min_width=min_width, relative_to=relative_to, select_within=select_within,
        min_share=min_share, ranking=ranking, pace="curve", end_step=1,
    )  # fmt: skip
    _check_effects(ranking, scores)
    refuse_unsupported(model, needs_weights=scores is None)
    pairs = coupled_pairs(model)  # derived once, and handed on
    sparsifier = CoupledSparsifier(model, config, cut_frozen=True, pairs=pairs)
    importances = dict.fromkeys((pair.name for pair in pairs), 1.0) if importances is None else importances
    check_importances(pairs, importances)
    if scores is not None:
        check_scores(pairs, scores)
    plan = sparsifier.plan(model, importances, goal=sparsifier.target_size, scores=scores, pairs=pairs)
    if plan is not None:
        return plan
    reason = f"nothing to cut: {sparsifier.standing(model)}"
    logger.log(logging.INFO if sparsifier.target_size == sparsifier.full_size else logging.WARNING, reason)
    return SparsityPlan.build(model, {}, reason, pairs)


def check_importances(pairs: Sequence[CoupledPair], importances: Mapping[str, float]) -> None:
    """Refuse importances by which the pairs cannot be ranked.

    Args:
        pairs: the model's pairs.
        importances: as a caller gave them.

    Raises:
        ConfigError: one is missing, or is no finite number.
    """
    _check_names(pairs, "importances", importances)
    for pair in pairs:
        value = importances[pair.name]
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            raise ConfigError(
                f"importances[{pair.name!r}] is {value!r}; it must be a finite number; leave importances out to rank "
                "all pairs equally"
            )


def check_scores(pairs: Sequence[CoupledPair], scores: Mapping[str, Tensor]) -> None:
    """Refuse index scores that do not fit the pairs.

    Args:
        pairs: the model's pairs.
        scores: as a caller gave them.

    Raises:
        ConfigError: one is missing, of another shape, negative or not finite.
    """
    _check_names(pairs, "scores", scores)
    for pair in pairs:
        value, shape = scores[pair.name], (pair.groups, pair.units)
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape != shape:
            found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"scores[{pair.name!r}] is {found}; it must be a floating-point tensor {shape}")
        if not bool((torch.isfinite(value) & (value >= 0)).all()):
            raise ConfigError(
                f"scores[{pair.name!r}] holds a negative, NaN or infinite entry; scores are norms in [0, inf); "
                "look for broken weights"
            )


def asked(scorer: Scorer | None, model: nn.Module, pairs: Sequence[CoupledPair]) -> dict[str, Tensor] | None:
    """Index scores as a caller's function gives them, checked, on the CPU.

    Args:
        scorer: the function; None has nothing to say.
        model: the model of the pairs.
        pairs: those that may be cut.

    Raises:
        ConfigError: as for `check_scores`.
    """
    if scorer is None:
        return None
    with torch.no_grad():
        scores = scorer(model, pairs)
    check_scores(pairs, scores)
    return {name: value.detach().cpu() for name, value in scores.items()}


def _check_effects(ranking: RankedBy, scores: object) -> None:
    if ranking == "units" and scores is None:
        raise ConfigError(
            "scores is None and ranking is 'units', which compares units of different pairs, and norms of weights do "
            "not compare; give effects on the loss (ecospa.unit_effects.UnitEffects), or use ranking='pairs'"
        )


def _check_names(pairs: Sequence[CoupledPair], field: str, given: object) -> None:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{field} is a {type(given).__name__}; it must be a mapping with an entry for every pair")
    if missing := [pair.name for pair in pairs if pair.name not in given]:
        raise ConfigError(f"{field} lacks {missing[0]}; give an entry for every pair, or leave it out")
