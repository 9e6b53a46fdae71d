"""Shapes of a given size without any training: rules that a shape which was searched for has to beat.

Every rule names the pair whose next width step is the cheapest, and steps are taken until none fits between the size
and the target. No part of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from torch import nn

from ecospa.config import ConfigError, EcoSpaConfig
from ecospa.pairs import CoupledPair, PairKind
from ecospa.shape import Shape, ShapeError
from ecospa.sparsifier import CoupledSparsifier
from ecospa.tying import tie, tie_values, twins, untie
from ecospa.unit_selection import take_steps


def uniform(model: nn.Module, config: EcoSpaConfig) -> Shape:
    """Every pair keeps the same share of its width.

    Args:
        model: dense model of a supported family, on any device, the meta device too.
        config: target_size, target_scope and the widths that are allowed: width_multiple, min_width, min_share.

    Returns:
        The shape, within one width step above the target.

    Raises:
        ConfigError: the target cannot be reached.
        ShapeError: the model has been cut.
        UnsupportedModelError: the model cannot be cut.
    """
    return _in_proportion(model, config, lambda pair, depth: 1.0, rule="uniform", settings=asdict(config))


def linear_taper(model: nn.Module, config: EcoSpaConfig, *, last: float = 0.25) -> Shape:
    """Widths that change linearly with depth, from the first block to the last, as far as the dense widths let them.

    share(block l of L) ~ 1 + (last - 1) l / (L - 1)

    Args:
        model, config: as for `uniform`.
        last: share of the last block over that of the first; above 1 the model widens.

    Returns:
        The shape, within one width step above the target.

    Raises:
        ConfigError: as for `uniform`, or `last` is not a positive number.
        ShapeError, UnsupportedModelError: as for `uniform`.

    Source: the layer-wise scaling of Mehta et al. (arXiv 2404.14619), which widens with depth; EcoSpa leaves the first
    blocks wide.
    """
    if isinstance(last, bool) or not isinstance(last, (int, float)) or not 0 < last < math.inf:
        raise ConfigError(f"last is {last!r}; it must be a number above 0: 0.25 narrows towards the last block")
    settings = {**asdict(config), "last": float(last)}
    return _in_proportion(
        model, config, lambda pair, depth: 1 + (last - 1) * depth, rule="linear_taper", settings=settings
    )


def feed_forward_first(model: nn.Module, config: EcoSpaConfig) -> Shape:
    """Feed-forward layers of the first blocks alone: all other pairs give way first, the last blocks before the others.

    Attention pairs go to the narrowest width that is allowed, then feed-forward pairs do, from the last block back,
    until the target is reached.

    Args:
        model, config: as for `uniform`.

    Returns:
        The shape, within one width step above the target.

    Raises:
        ConfigError, ShapeError, UnsupportedModelError: as for `uniform`.
    """
    sparsifier = CoupledSparsifier(model, config, cut_frozen=True)
    pairs = sparsifier.pairs(model)
    later = {pair.name: len(pairs) if pair.kind is PairKind.FFN else 0 for pair in pairs}
    place = {name: float(after - number) for number, (name, after) in enumerate(later.items())}
    settings = asdict(config)
    return _landed(model, sparsifier, lambda name, left: place[name], rule="feed_forward_first", settings=settings)


def average(model: nn.Module, shapes: Sequence[Shape], config: EcoSpaConfig) -> Shape:
    """The mean width of every pair over some shapes, rounded to allowed widths and landed on the target.

    Args:
        model, config: as for `uniform`.
        shapes: of this model, at least one; of a single one that landed on the target the widths are its own.

    Returns:
        The shape, within one width step above the target; steps and FLOPs of its probes are those of all together.

    Raises:
        ConfigError, UnsupportedModelError: as for `uniform`.
        ShapeError: there is no shape, or one is that of another model.
    """
    if not shapes:
        raise ShapeError("shapes is empty; give one at least")
    for shape in shapes:
        shape.plan(model)
    means = {name: fmean(shape.widths[name] for shape in shapes) for name in shapes[0].widths}
    flops = [shape.probe_flops for shape in shapes]
    return _in_proportion(
        model,
        config,
        lambda pair, depth: means[pair.name] / pair.width,
        rule=shapes[0].rule,
        settings=shapes[0].settings,
        seeds=tuple(seed for shape in shapes for seed in shape.seeds),
        probe_steps=sum(shape.probe_steps for shape in shapes),
        probe_flops=None if None in flops else sum(count for count in flops if count is not None),
    )


Share = Callable[[CoupledPair, float], float]
"""(pair, depth of its block in [0, 1]) -> wanted width over dense width, up to a factor common to all pairs."""


def _in_proportion(model: nn.Module, config: EcoSpaConfig, share: Share, **origin: Any) -> Shape:
    """The pair that lies the most above its wanted share gives way."""
    sparsifier = CoupledSparsifier(model, config, cut_frozen=True)
    pairs = sparsifier.pairs(model)
    blocks = list(dict.fromkeys(pair.block for pair in pairs))
    wanted = {pair.name: share(pair, blocks.index(pair.block) / max(1, len(blocks) - 1)) for pair in pairs}
    if sparsifier.rule.tied:
        wanted = tie_values(twins(pairs), wanted)
    return _landed(model, sparsifier, lambda name, left: -left / wanted[name], **origin)


def _landed(
    model: nn.Module, sparsifier: CoupledSparsifier, price: Callable[[str, float], float], **origin: Any
) -> Shape:
    """The shape after the cheapest steps; the price is that of (pair, share of its dense width before the step)."""
    tied = twins(sparsifier.pairs(model)) if sparsifier.rule.tied else ()
    entries = tie(tied, sparsifier.pair_widths(model))
    removable = sparsifier.size(model) - sparsifier.target_size
    chosen = take_steps(entries, removable, lambda name, width, narrower: price(name, width / entries[name].width))
    units = untie(tied, chosen)
    widths = {pair.name: round(units[pair.name]) * pair.unit for pair in sparsifier.pairs(model)}
    return Shape.build(model, widths, **origin)
