"""Irregular widths: a model that is smaller and no faster (paper: no speed-up where the structure is irregular).

Vector registers and matrix units are filled in multiples. The table of `width_rule` says which; whether a shrunk model
loses time by its own widths is measured, against the same layers at the next multiple above, which do more work.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ecospa.config import ConfigError
from ecospa.families import coupled_pairs
from ecospa.health import FailureSignatureWarning
from ecospa.pairs import CoupledPair, PairKind
from ecospa.width_rule import DEVICE_WIDTHS, WidthRule, fitting
from ecospa.width_timing import layer_times

_WAY_OUT = "use width_multiple=8 or 'auto'"


@dataclass(frozen=True)
class WidthCheck:
    """Widths of a model against what its device likes.

    Attributes:
        irregular: names of the pairs whose widths are no multiples of the device table's finest of their kind.
        time_ratio: time of all coupled layers over that with every irregular width rounded up; 1 where all are regular.
    """

    irregular: tuple[str, ...]
    time_ratio: float

    @property
    def no_speedup(self) -> bool:
        """True where the last indices that were cut have brought no time: wider layers are at least as fast."""
        return bool(self.irregular) and self.time_ratio >= 1


def check_widths(model: nn.Module) -> WidthCheck:
    """Measure the coupled layers of a model at its own widths and at regular ones, and warn where those are as fast.

    It takes a few seconds, on a model that was cut or on a copy that a plan was applied to, and tells nothing certain
    while other work keeps the device busy. What is measured is in the dtype of the weights.

    Args:
        model: of a supported family, on the device on which it is to be fast.

    Raises:
        ConfigError: nothing is known of the device.
    """
    pairs = coupled_pairs(model)
    rule = regular_widths(pairs, next(model.parameters()).device.type)
    irregular = tuple(pair.name for pair in pairs if pair.width % rule.multiple(pair.kind))
    found = WidthCheck(irregular, _time_ratio(model, pairs, rule) if irregular else 1.0)
    if found.no_speedup:
        warnings.warn(
            f"{len(irregular)} of {len(pairs)} pairs have irregular widths, {irregular[0]} among them; their layers "
            f"take {found.time_ratio:.2f} of the time of layers rounded up to multiples of {rule.qk} (heads) and "
            f"{rule.ffn} (feed-forward), so the last cuts brought no speed-up; {_WAY_OUT}",
            FailureSignatureWarning,
            stacklevel=2,
        )
    return found


def irregular_rule(rule: WidthRule, pairs: Sequence[CoupledPair], device: str) -> str:
    """Say that a rule allows widths which the device table does not like at all; empty where it does not.

    Args:
        rule: widths that a plan may choose.
        pairs: of the dense model.
        device: "cpu" or "cuda"; others are unknown, and nothing is said of them.
    """
    if device not in DEVICE_WIDTHS:
        return ""
    multiple = regular_widths(pairs, device).qk
    odd = {kind.value: rule.multiple(kind) for kind in PairKind if rule.multiple(kind) % multiple}
    if not odd:
        return ""
    told = ", ".join(f"{kind} {value}" for kind, value in odd.items())
    return (
        f"IRREGULAR WIDTHS: multiples of {told} are not multiples of {multiple} ({device}: "
        f"{DEVICE_WIDTHS[device].why}), so fewer FLOPs may bring no speed-up; {_WAY_OUT}"
    )


def regular_widths(pairs: Sequence[CoupledPair], device: str) -> WidthRule:
    """The finest multiples of the device table that fit the widest head and the widest feed-forward layer.

    Args:
        pairs: of a model.
        device: "cpu" or "cuda".

    Raises:
        ConfigError: the table has no row for the device.
    """
    if device not in DEVICE_WIDTHS:
        raise ConfigError(f"device is {device!r}, and widths are known of {', '.join(DEVICE_WIDTHS)}; move the model")
    table = DEVICE_WIDTHS[device]
    heads = fitting(table.heads, max(pair.width for pair in pairs if pair.kind is not PairKind.FFN))[0]
    inner = fitting(table.ffn, max(pair.width for pair in pairs if pair.kind is PairKind.FFN))[0]
    return WidthRule(heads, heads, inner, reason=table.why)


def _time_ratio(model: nn.Module, pairs: Sequence[CoupledPair], rule: WidthRule) -> float:
    """Time of all layers as they are over that of all layers rounded up."""
    inner = [pair.width for pair in pairs if pair.kind is PairKind.FFN]
    values = {pair.module: pair.width for pair in pairs if pair.kind is PairKind.VO}
    heads = [(pair.width, values[pair.module]) for pair in pairs if pair.kind is PairKind.QK]
    wider_heads = [(_up(qk, rule.qk), _up(vo, rule.vo)) for qk, vo in heads]
    wider_inner = [_up(width, rule.ffn) for width in inner]
    every_head = list(dict.fromkeys([*heads, *wider_heads]))
    every_inner = list(dict.fromkeys([*inner, *wider_inner]))
    head_seconds, inner_seconds = layer_times(model, every_head, every_inner)
    of_heads = dict(zip(every_head, head_seconds, strict=True))
    of_inner = dict(zip(every_inner, inner_seconds, strict=True))
    own = sum(of_heads[one] for one in heads) + sum(of_inner[one] for one in inner)
    return own / (sum(of_heads[one] for one in wider_heads) + sum(of_inner[one] for one in wider_inner))


def _up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple
