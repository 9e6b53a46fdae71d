"""Record of a cut in modules and configurations, besides their weights: class, geometry, memory, shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn

from ecospa.attention import CoupledAttention, HeadGeometry, original_indices
from ecospa.class_swap import swapped_class
from ecospa.dense import MEMORY, dense_memory
from ecospa.families import coupled_pairs, known_family
from ecospa.journal import Change, NewClass, NewEntry
from ecospa.pairs import CoupledPair, PairKind
from ecospa.wrappers import named_modules, unwrapped

_T = TypeVar("_T")


def narrower(model: nn.Module, pairs: Mapping[str, CoupledPair], kept: Mapping[str, Tensor]) -> Iterator[Change]:
    """Changes of the modules whose pairs become narrower.

    Args:
        model: the model, not yet cut.
        pairs: its pairs by name.
        kept: pair name -> int64 (groups, kept), what stays of the pairs that are cut now.
    """
    cut = [pairs[name] for name in kept]
    yield from _remembered(model, cut)
    for name, attention, mixin, old in _attentions(model, cut):
        mine = {pair.kind: kept[pair.name] for pair in cut if pair.module == name}
        widths = {kind: rows.shape[1] for kind, rows in mine.items()}
        qk, vo = widths.get(PairKind.QK, old.qk_width), widths.get(PairKind.VO, old.vo_width)
        new = replace(old, qk_width=qk, vo_width=vo)
        yield from _rebuilt(attention, mixin, old, new, _gathered(mine.get(PairKind.QK)))


def without_heads(model: nn.Module, affected: Iterable[CoupledPair], stays: Mapping[str, Tensor]) -> Iterator[Change]:
    """Changes of the attention modules that lose whole heads.

    Args:
        model: the model, not yet cut.
        affected: the pairs of these modules.
        stays: attention module -> numbers of the key/value heads that stay.
    """
    affected = list(affected)
    yield from _remembered(model, affected)
    for name, attention, mixin, old in _attentions(model, affected):
        new = replace(old, groups=len(stays[name]))
        yield from _rebuilt(attention, mixin, old, new, _of_heads(stays[name]))


def recorded(
    model: nn.Module, widths: Mapping[str, int], heads: Mapping[str, int], new_biases: Iterable[str] = ()
) -> Iterator[Change]:
    """The shape in the config of every outermost transformers model, from where a checkpoint takes it.

    Args:
        model: the model.
        widths: width of every pair after the change.
        heads: key/value heads of every attention module after the change.
        new_biases: projections that get a bias.
    """
    made = list(new_biases)
    inside: tuple[str, ...] = ()
    for name, module in named_modules(model):
        config: Any = getattr(module, "config", None)
        if not hasattr(config, "to_dict") or not hasattr(module, "save_pretrained") or f"{name}.".startswith(inside):
            continue
        prefix = f"{name}.".lstrip(".")
        inside += (prefix,)
        own = _inside(prefix, widths)
        if own:
            old = getattr(config, "ecospa", None) or {}
            biases = {*old.get("biases", ()), *_inside(prefix, dict.fromkeys(made))}
            record = {"version": 1, "widths": own, "heads": _inside(prefix, heads), "biases": sorted(biases)}
            yield NewEntry(vars(config), "ecospa", record)


def shape_of(model: nn.Module) -> dict[str, dict[str, int]]:
    """Return what a checkpoint must know to rebuild a model: width of every pair, key/value heads of every attention.

    Returns:
        {"widths": {pair: indices}, "heads": {attention module: groups}}
    """
    pairs = coupled_pairs(model)
    heads = {pair.module: pair.groups for pair in pairs if pair.kind is not PairKind.FFN}
    return {"widths": {pair.name: pair.width for pair in pairs}, "heads": heads}


def _remembered(model: nn.Module, pairs: Iterable[CoupledPair]) -> Iterator[Change]:
    for name, memory in dense_memory(model, pairs).items():
        yield NewEntry(vars(unwrapped(model.get_submodule(name))), MEMORY, memory)


def _attentions(
    model: nn.Module, pairs: Iterable[CoupledPair]
) -> Iterator[tuple[str, nn.Module, type[CoupledAttention], HeadGeometry]]:
    """Every attention module of some pairs once: name, module, its family's forward, its geometry now."""
    blocks = {pair.module: pair.block for pair in pairs if pair.kind is not PairKind.FFN}
    for name, block in blocks.items():
        family, attention = known_family(model.get_submodule(block)), model.get_submodule(name)
        yield name, attention, family.attention, family.geometry(attention)


def _rebuilt(
    attention: nn.Module,
    mixin: type[CoupledAttention],
    old: HeadGeometry,
    new: HeadGeometry,
    surviving: Callable[[Tensor], Tensor],
) -> Iterator[Change]:
    if old.tracked:
        yield NewEntry(attention._buffers, "kept_qk", surviving(original_indices(attention, old)))
    if not isinstance(attention, CoupledAttention):
        yield NewClass(attention, swapped_class(type(attention), mixin))
    yield NewEntry(vars(attention), "geometry", new)


def _gathered(rows: Tensor | None) -> Callable[[Tensor], Tensor]:
    return lambda indices: indices if rows is None else indices.gather(1, rows.to(indices.device))


def _of_heads(heads: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda indices: indices[heads.to(indices.device)]


def _inside(prefix: str, named: Mapping[str, _T]) -> dict[str, _T]:
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
