"""Estimator and scorer of a run: those that a configuration names, or those that a caller gives."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from ecospa.config import ConfigError, EcoSpaConfig
from ecospa.estimator import CoupledEstimator, EstimatorMaker, ImportanceEstimator
from ecospa.pairs import CoupledPair
from ecospa.scaled_importance import FirstOrderTaylor, FisherByKind, WeightNormFisher
from ecospa.sparsifier import Scorer
from ecospa.unit_effects import UnitEffects

_SCALED: dict[str, type[CoupledEstimator]] = {
    "none": CoupledEstimator,
    "weight_norm": WeightNormFisher,
    "first_order": FirstOrderTaylor,
    "kind": FisherByKind,
}
_OWN = {"estimator": "fisher", "importance_scale": "none"}
"""Fields that say how importance is measured, with the value that leaves it to an estimator that is given."""
_ASKED = ("steps", "update", "importances", "rebind", "mark", "rewind", "state_dict", "load_state_dict")
_WANTED = "give a subclass of CoupledEstimator, an ImportanceEstimator, or what makes one from (model, pairs)"


def measures_of(
    estimator: ImportanceEstimator | EstimatorMaker | None,
    scorer: Scorer | None,
    model: nn.Module,
    pairs: Sequence[CoupledPair],
    config: EcoSpaConfig,
    optimizer: Any,
) -> tuple[ImportanceEstimator, Scorer | None]:
    """The estimator of a run, about to measure its first window, and the scorer, None being norm products.

    Args:
        estimator: an estimator, what makes one, or None for the one that the configuration names.
        scorer: index scores, or None for those that the configuration names.
        model: the model that is trained.
        pairs: those of it that may be cut.
        config: of the run.
        optimizer: of the run.

    Raises:
        ConfigError: the configuration names one besides, or what is given is none and makes none.
    """
    if config.ranking == "units":
        if estimator is not None or scorer is not None:
            raise ConfigError(
                "config.ranking is 'units', which measures effects of its own, and an estimator or a scorer is given; "
                "leave it out, or use ranking='pairs'"
            )
        effects = UnitEffects(model, pairs)
        return effects, effects.effects
    if estimator is None:
        return _SCALED[config.importance_scale](model, pairs, config.estimator, optimizer), scorer
    for field, own in _OWN.items():
        if getattr(config, field) != own:
            raise ConfigError(
                f"config.{field} is {getattr(config, field)!r} and another estimator is given; leave one out"
            )
    return _given(estimator, model, pairs), scorer


def _given(
    given: ImportanceEstimator | EstimatorMaker, model: nn.Module, pairs: Sequence[CoupledPair]
) -> ImportanceEstimator:
    makes_one = isinstance(given, type) or (callable(given) and _lacks(given))
    if makes_one and not _takes(given, model, pairs):
        raise ConfigError(f"estimator is {given!r}, which cannot be called with (model, pairs); {_WANTED}")
    estimator = cast(EstimatorMaker, given)(model, pairs) if makes_one else given
    if missing := _lacks(estimator):
        raise ConfigError(f"estimator is {estimator!r}, which has no {', '.join(missing)}; {_WANTED}")
    own = cast(ImportanceEstimator, estimator)
    if not makes_one:
        own.rebind(pairs)
    return own


def _lacks(estimator: object) -> list[str]:
    return [name for name in _ASKED if not hasattr(estimator, name)]


def _takes(maker: Any, *arguments: Any) -> bool:
    try:
        inspect.signature(maker).bind(*arguments)
    except TypeError:
        return False
    return True
