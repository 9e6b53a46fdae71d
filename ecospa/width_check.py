"""Irregular widths: a model that is smaller and no faster (paper: no speed-up where the structure is irregular).

Vector registers and matrix units are filled in multiples. The table of `width_rule` says which; whether a shrunk model
loses time by its own widths is measured, against the same layers at the next multiple above, which do more work.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

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
        multiple: indices that regular widths are multiples of.
        irregular: names of the pairs whose widths are none.
        time_ratio: time of all coupled layers over that with every irregular width rounded up; 1 where all are regular.
    """

    multiple: int
    irregular: tuple[str, ...]
    time_ratio: float

    @property
    def no_speedup(self) -> bool:
        """True where the last indices that were cut have brought no time: wider layers are at least as fast."""
        return bool(self.irregular) and self.time_ratio >= 1


def check_widths(model: nn.Module) -> WidthCheck:
    """Measure the coupled layers of a model at its own widths and at regular ones, and warn where those are as fast.

    It takes a few seconds, on a model that was cut or on a copy that a plan was applied to.

    Args:
        model: of a supported family, on the device on which it is to be fast.

    Raises:
        ConfigError, KeyError: nothing is known of the device.
    """
    pairs = coupled_pairs(model)
    multiple = regular_multiple(pairs, next(model.parameters()).device.type)
    irregular = tuple(pair.name for pair in pairs if pair.width % multiple)
    found = WidthCheck(multiple, irregular, _time_ratio(model, pairs, multiple) if irregular else 1.0)
    if found.no_speedup:
        warnings.warn(
            f"{len(irregular)} of {len(pairs)} pairs have widths that are no multiples of {multiple}, {irregular[0]} "
            f"among them; their layers take {found.time_ratio:.2f} of the time of layers rounded up to the next "
            f"multiple, so the last cuts brought no speed-up; {_WAY_OUT}",
            FailureSignatureWarning,
            stacklevel=2,
        )
    return found


def irregular_rule(rule: WidthRule, pairs: Sequence[CoupledPair], device: str) -> str:
    """Say that a rule allows widths which the device table does not like; empty where it does not.

    Args:
        rule: widths that a plan may choose.
        pairs: of the dense model.
        device: "cpu" or "cuda"; others are unknown, and nothing is said of them.
    """
    if device not in DEVICE_WIDTHS:
        return ""
    multiple = regular_multiple(pairs, device)
    odd = {kind.value: rule.multiple(kind) for kind in PairKind if rule.multiple(kind) % multiple}
    if not odd:
        return ""
    told = ", ".join(f"{kind} {value}" for kind, value in odd.items())
    return (
        f"IRREGULAR WIDTHS: multiples of {told} are not multiples of {multiple} ({device}: "
        f"{DEVICE_WIDTHS[device].why}), so fewer FLOPs may bring no speed-up; {_WAY_OUT}"
    )


def regular_multiple(pairs: Sequence[CoupledPair], device: str) -> int:
    """Indices that regular widths are multiples of: the finest of the device table that fits the widest head."""
    widest = max(pair.width for pair in pairs if pair.kind is not PairKind.FFN)
    return fitting(DEVICE_WIDTHS[device].heads, widest)[0]


def _time_ratio(model: nn.Module, pairs: Sequence[CoupledPair], multiple: int) -> float:
    """Time of all layers as they are over that of all layers rounded up."""
    inner = [pair.width for pair in pairs if pair.kind is PairKind.FFN]
    values = {pair.module: pair.width for pair in pairs if pair.kind is PairKind.VO}
    heads = [(pair.width, values[pair.module]) for pair in pairs if pair.kind is PairKind.QK]
    wider_heads = [(_up(qk, multiple), _up(vo, multiple)) for qk, vo in heads]
    every_head = list(dict.fromkeys([*heads, *wider_heads]))
    every_inner = list(dict.fromkeys([*inner, *(_up(width, multiple) for width in inner)]))
    head_seconds, inner_seconds = layer_times(model, every_head, every_inner)
    of_heads = dict(zip(every_head, head_seconds, strict=True))
    of_inner = dict(zip(every_inner, inner_seconds, strict=True))
    own = sum(of_heads[one] for one in heads) + sum(of_inner[one] for one in inner)
    wider = sum(of_heads[one] for one in wider_heads) + sum(of_inner[_up(one, multiple)] for one in inner)
    return own / wider


def _up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple
