"""Every choice of the method in one frozen object, checked when it is made (paper: K, theta and c of Section 3).

A wrong number must stop a run before it starts, not after the first event: each error names the field, the value, the
allowed range and the way out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from ecospa.pairs import PairKind
from ecospa.width_rule import WidthRule

TargetScope = Literal["parameters", "blocks"]
Pace = Literal["paper", "curve"]
Curve = Literal["linear", "cubic"]
Granularity = Literal["layer", "head"]
EstimatorMode = Literal["fisher", "adam"]
RelativeTo = Literal["dense", "current"]
ImportanceScale = Literal["none", "weight_norm", "first_order", "kind"]
SelectWithin = Literal["all", "kind"]
RankedBy = Literal["pairs", "units"]

_CHOICES = {
    "target_scope": TargetScope,
    "pace": Pace,
    "curve": Curve,
    "granularity": Granularity,
    "estimator": EstimatorMode,
    "relative_to": RelativeTo,
    "importance_scale": ImportanceScale,
    "select_within": SelectWithin,
    "ranking": RankedBy,
}
_SHARES = (
    ("top_k", False, "0.30 is the paper's value"),
    ("importance_threshold", True, "0.90 is the paper's value"),
    ("target_size", False, "0.5 keeps half of the parameters"),
)
_OF_PAIRS = {"importance_scale": "none", "select_within": "all", "granularity": "layer", "estimator": "fisher"}
"""Fields that ranking='units' does not look at, with the value that they keep."""
_LARGEST = 2**53
"""Whole numbers up to here are exact in floating point too, which the size curve counts steps in."""


class ConfigError(ValueError):
    """A field of a configuration is outside its range; the message names field, value, range and way out."""


@dataclass(frozen=True)
class EcoSpaConfig:
    """Configuration of coupled sparsity: what is cut, how far, how fast.

    Attributes:
        top_k: K, share of the pairs that one event may cut, the least important first; in (0, 1].
        importance_threshold: theta, share of a pair's index scores that an event KEEPS; in (0, 1).
        target_size: c, share of the parameters in `target_scope` that is left at the end; in (0, 1].
        target_scope: "parameters" counts the whole model, "blocks" only what lies inside the transformer blocks.
        interval: optimizer steps between two events; None derives it from `end_step`, or is 100 without one.
        start_step: optimizer steps before the first event may happen.
        end_step: optimizer step by which the target is reached; the `curve` pace needs it.
        pace: "paper" lets K and theta alone decide how much an event cuts; "curve" brings the size down to a
            given curve, and K and theta decide where: an event that must cut more than theta lets it cuts the same K
            pairs by theta again, as if several of the paper's events fell on one step.
        curve: shape of that curve, "linear" or "cubic" (Zhu and Gupta, arXiv 1710.01878, equation 1).
        width_multiple: widths stay multiples of this many indices (kernels like 8, 16, 64). "auto" chooses multiples
            for the model's device, by kind of pair, from a table and by measuring; a WidthRule (or a mapping of its
            fields) gives them by kind.
        min_width: no pair becomes narrower; None means the multiple of its kind.
        granularity: "layer" takes theta over all heads of a layer together, "head" makes every head keep theta of
            its own score; either way all heads of a layer end equally wide.
        estimator: "fisher" accumulates squared gradients between events, "adam" reads the optimizer's second moment.
        relative_to: what `target_size` is a share of: the "dense" model, however often it has been cut since, so that
            training twice ends where training once does, or the "current" model, as it is when the run begins.
        importance_scale: normalisation of the importance of pairs, of which I(pair) is the mean over matrices.
            "none": I(W) = mean_ij (dL/dW_ij)^2, the paper's empirical Fisher information.
            "weight_norm": I(W) * mean_ij W_ij^2, the same for W as for s W.
            "first_order": I(W) = mean over steps of mean_ij |W_ij dL/dW_ij|.
            "kind": I(pair) / mean of I over all pairs of its kind (QK, VO, FFN).
        select_within: K takes the least important ceil(K n) of "all" n pairs, or ceil(K n_kind) of every "kind".
        min_share: no pair is cut below this share of its width in the dense model; in [0, 1).
        ranking: "pairs" cuts K pairs by theta. "units" ranks the indices of all pairs together and cuts the least
            until the size of the event is reached, by their effect on the loss to first order for each parameter that
            goes with them: (|sum_left W dL/dW| + |sum_right W dL/dW|) / 2, the mean over steps, of one unit. It needs
            a size to cut down to, pace="curve"; K and theta say nothing then.

    Numbers may be numpy's; they are kept as Python's.

    Raises:
        ConfigError: a field is outside its range.

    Deviation: the summary of the paper gives K = 30 % and theta = 90 % only; interval, curve, scope and rounding are
    choices of this implementation.
    Deviation: every value of `importance_scale`, `select_within`, `min_share` and `ranking` but the default is a choice
    that the paper does not make: its Fisher information depends on the scale and the kind of a matrix, its K looks at
    all pairs alike, nothing keeps a pair from the floor of its widths, and a whole pair is what is ranked.
    """

    top_k: float = 0.30
    importance_threshold: float = 0.90
    target_size: float = 0.5
    target_scope: TargetScope = "parameters"
    interval: int | None = None
    start_step: int = 0
    end_step: int | None = None
    pace: Pace = "paper"
    curve: Curve = "cubic"
    width_multiple: int | Literal["auto"] | WidthRule = 8
    min_width: int | None = None
    granularity: Granularity = "layer"
    estimator: EstimatorMode = "fisher"
    relative_to: RelativeTo = "dense"
    importance_scale: ImportanceScale = "none"
    select_within: SelectWithin = "all"
    min_share: float = 0.0
    ranking: RankedBy = "pairs"

    def __post_init__(self) -> None:
        for name, upper_open, way_out in _SHARES:
            self._set(name, _share(name, getattr(self, name), upper_open=upper_open, way_out=way_out))
        self._set("min_share", _share_or_none(self.min_share))
        self._set("width_multiple", _multiple(self.width_multiple))
        self._set("start_step", _whole("start_step", self.start_step, 0))
        for name in ("interval", "end_step", "min_width"):
            value = getattr(self, name)
            if value is not None:
                self._set(name, _whole(name, value, 1))
        for name, literal in _CHOICES.items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in get_args(literal):
                raise ConfigError(
                    f"{name} is {_shown(getattr(self, name))}; choose one of {', '.join(get_args(literal))}"
                )
        if self.end_step is not None and self.end_step <= self.start_step:
            raise ConfigError(f"end_step is {self.end_step}; it must come after start_step, {self.start_step}")
        if self.pace == "curve" and self.end_step is None:
            raise ConfigError("end_step is None; pace='curve' needs the step at which the target is reached")
        self._check_choices()

    def _check_choices(self) -> None:
        """Refuse choices of which one would be silently ignored."""
        if self.importance_scale == "first_order" and self.estimator == "adam":
            raise ConfigError(
                "importance_scale is 'first_order' and estimator is 'adam', whose second moments hold no sums of "
                "W dL/dW; use estimator='fisher', which then measures them"
            )
        if self.ranking == "pairs":
            return
        if self.pace != "curve":
            raise ConfigError(
                f"ranking is 'units' and pace is {self.pace!r}, at which theta alone decides how much of a pair goes; "
                "units are cut down to a size, use pace='curve' with an end_step, or ranking='pairs'"
            )
        for name, kept in _OF_PAIRS.items():
            if getattr(self, name) != kept:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}, which ranking='units' does not look at; leave it at {kept!r}, "
                    "or use ranking='pairs'"
                )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # frozen, but still being made

    def floor_width(self, rule: WidthRule, kind: PairKind) -> int:
        """Width in indices below which no pair of a kind is cut, under the rule that `width_multiple` led to."""
        return rule.multiple(kind) if self.min_width is None else self.min_width


def _multiple(given: Any) -> int | Literal["auto"] | WidthRule:
    if isinstance(given, str) and given == "auto":
        return "auto"
    if isinstance(given, Mapping):  # as JSON gives it back
        fields = {field.name for field in dataclasses.fields(WidthRule)}
        if unknown := set(given) - fields or {"qk", "vo", "ffn"} - set(given):
            raise ConfigError(
                f"width_multiple is {dict(given)!r}, where {', '.join(sorted(map(str, unknown)))} is missing or "
                "unknown; give the fields of a WidthRule: qk, vo, ffn, tied, reason"
            )
        given = WidthRule(**given)
    if isinstance(given, WidthRule):
        qk, vo, ffn = (_whole(f"width_multiple.{kind}", getattr(given, kind), 1) for kind in ("qk", "vo", "ffn"))
        if type(given.tied) is not bool or not isinstance(given.reason, str):
            raise ConfigError(
                f"width_multiple is {given!r}; tied must be True or False and reason a text; leave both out"
            )
        return WidthRule(qk, vo, ffn, given.tied, given.reason)
    if not _is_number(given, Integral) or not 1 <= int(given) <= _LARGEST:
        raise ConfigError(
            f"width_multiple is {_shown(given)}; it must be a whole number in [1, 2**53], 'auto', or a WidthRule; "
            "8 suits most machines"
        )
    return int(given)


def _share(name: str, value: Any, *, upper_open: bool, way_out: str) -> float:
    # compared before it is converted: a whole number may be too large for a float
    inside = _is_number(value, Real) and 0 < value <= 1
    share = float(value) if inside else math.nan
    if not 0 < share <= 1 or (upper_open and share == 1):
        raise ConfigError(
            f"{name} is {_shown(value)}; it must be a share in (0, 1{')' if upper_open else ']'}; {way_out}"
        )
    return value if type(value) is int else share


def _share_or_none(value: Any) -> float:
    inside = _is_number(value, Real) and 0 <= value < 1
    share = float(value) if inside else math.nan  # just below 1 may become 1
    if not 0 <= share < 1:
        raise ConfigError(
            f"min_share is {_shown(value)}; it must be a share in [0, 1); 0 leaves the floors to min_width and "
            "width_multiple"
        )
    return share + 0.0  # -0.0 is written as 0.0


def _whole(name: str, value: Any, least: int) -> int:
    if not _is_number(value, Integral) or not least <= int(value) <= _LARGEST:
        raise ConfigError(
            f"{name} is {_shown(value)}; it must be a whole number of at least {least}, and at most 2**53"
        )
    return int(value)


def _is_number(value: object, kind: type[Integral] | type[Real]) -> bool:
    """A number of Python's or numpy's; True and False are numbers too, but nobody means them."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """A value for a message; of a number that Python refuses to print, its size."""
    return (
        f"a whole number of {value.bit_length()} bits"
        if isinstance(value, int) and value.bit_length() > 1000
        else repr(value)
    )
