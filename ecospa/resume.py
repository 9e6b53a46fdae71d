"""Settings that a resumed run may change from those of the run that was interrupted.

A state holds the configuration that led to it. A run that goes on with another one would obey half of it: sizes and
widths come from the state, the rest from the configuration. So every difference either takes effect for the rest of the
run, or is an error that says so.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from ecospa.config import ConfigError, EcoSpaConfig

logger = logging.getLogger(__name__)

CHANGEABLE = ("interval", "end_step", "pace", "curve")
"""Fields that may differ: they say when to cut and how far by then. No number of a state was made from them, apart from
the step of the next event, which is found anew. `importance_scale`, `select_within`, `min_share` and `ranking` are in
the cuts so far, and may not."""


def config_changes(state: Mapping[str, Any], config: EcoSpaConfig) -> dict[str, tuple[Any, Any]]:
    """Fields that a resumed run changes for its rest: name to (saved value, new value).

    `interval`, `end_step`, `pace` and `curve` may change at any time; `start_step` as long as neither the old nor the
    new one has passed, because gradients are gathered from there on. Everything else (what the target is and a share of
    what, which widths there are, how pairs and indices are chosen) has gone into the cuts so far: a run with two values
    of it has neither of them.

    Args:
        state: `CoupledSparsity.state_dict()` of the interrupted run. One of an earlier release, which holds no
            configuration, is taken for one of `config`.
        config: what the resumed run is asked for.

    Raises:
        ConfigError: another field differs, or the new `end_step` has passed; the message names field, saved and new
            value and the way out.
    """
    if state.get("config") is None:
        return {}
    saved, step = _saved_config(state["config"]), int(state["step"])
    changes = {}
    for field in dataclasses.fields(EcoSpaConfig):
        before, now = getattr(saved, field.name), getattr(config, field.name)
        if before == now:
            continue
        early = field.name == "start_step" and step <= min(before, now)
        if field.name not in CHANGEABLE and not early:
            raise ConfigError(
                f"{field.name} is {now!r}, and the run that resumes at step {step} was started with {before!r}; resume "
                f"it with {field.name}={before!r}, or start a new run from its weights (ecospa.from_pretrained)"
            )
        changes[field.name] = (before, now)
    if "end_step" in changes and config.end_step is not None and config.end_step <= step and not state["finished"]:
        raise ConfigError(
            f"end_step is {config.end_step} (saved: {saved.end_step}), and the run resumes at step {step} without "
            "having reached its target; give a later one"
        )
    return changes


def check_estimator(state: Mapping[str, Any], estimator: object) -> None:
    """Refuse the window of another estimator: its numbers are no sums of this one.

    Args:
        state: `CoupledSparsity.state_dict()` of the interrupted run. One of an earlier release names no estimator:
            there was only CoupledEstimator.
        estimator: of the run that resumes.

    Raises:
        ConfigError: the state was written with an estimator of another class; the message names both.
    """
    saved, now = state.get("estimator_class", "CoupledEstimator"), type(estimator).__name__
    if saved != now:
        raise ConfigError(
            f"estimator is a {now}, and the run that resumes at step {state['step']} was started with a {saved}; "
            f"resume it with estimator={saved}, or start a new run from its weights (ecospa.from_pretrained)"
        )


def report_changes(changes: Mapping[str, tuple[Any, Any]], step: int) -> None:
    """Log the fields that take effect from a step on.

    Args:
        changes: as `config_changes` found them; nothing is said where there are none.
        step: optimizer steps done.
    """
    if changes:
        named = ", ".join(f"{name} {before!r} -> {now!r}" for name, (before, now) in changes.items())
        logger.warning("resumed at step %d with a changed configuration, for the rest of the run: %s", step, named)


def _saved_config(fields: Mapping[str, Any]) -> EcoSpaConfig:
    known = {field.name for field in dataclasses.fields(EcoSpaConfig)}
    if unknown := sorted(set(fields) - known):
        raise ConfigError(
            f"the saved configuration has the field {unknown[0]}={fields[unknown[0]]!r}, which this release does not "
            "know; resume with the release that wrote it"
        )
    return EcoSpaConfig(**fields)
