"""Architecture families: one file each, found by scanning this folder (paper: attention and FFN blocks).

A family names its transformer blocks, finds the coupled pairs of one block, and gives the attention forward for unequal
widths. A new one needs one new file with a `FAMILY`, and nothing else. Whatever cannot be cut exactly is an error that
names the module: nothing is skipped silently.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ecospa.attention import CoupledAttention, HeadGeometry
from ecospa.class_swap import original_class
from ecospa.known_refusals import known_refusals
from ecospa.pairs import CoupledPair, PairKind, UnsupportedModelError
from ecospa.projections import Mergeable, MergedLinear
from ecospa.stock import Known, qualified
from ecospa.wrappers import named_modules, named_parameters, refuse_sharded, unwrapped


@dataclass(frozen=True)
class Family:
    """One architecture family.

    Attributes:
        name: short name for messages.
        blocks: qualified class names of its transformer blocks.
        find: (name of block, block) -> pairs; raises UnsupportedModelError for what it cannot cut exactly.
        attention: forward for unequal widths.
        geometry: widths of an attention module of this family, cut or not.
        mergeable: projections that can become one (`ecospa.merge_projections`); none where they are one already.
        stock: classes of the modules of a block, by their dotted names in it; cutting is exact for these.
        inputs: (block, hidden states) -> what the block must be called with besides them.
        joined_heads: why no head can leave without changing the others; "" where it can.
        whole: parameters of a block, by their dotted names in it, that no cut touches, such as a router's.
    """

    name: str
    blocks: frozenset[str]
    find: Callable[[str, nn.Module], Iterator[CoupledPair]]
    attention: type[CoupledAttention]
    geometry: Callable[[nn.Module], HeadGeometry]
    mergeable: tuple[Mergeable, ...] = ()
    stock: Known = field(default_factory=dict)
    inputs: Callable[[nn.Module, Tensor], dict[str, Any]] = lambda block, states: {}
    joined_heads: str = ""
    whole: frozenset[str] = frozenset()


@functools.cache
def families() -> tuple[Family, ...]:
    """Every family of this folder, in the order of the file names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}").FAMILY for name in names)


@functools.cache
def _family_by_block() -> dict[str, Family]:
    return {block: family for family in families() for block in family.blocks}


def family_of(block: nn.Module) -> Family | None:
    """The family whose block this module is (compiled or not), or None."""
    kind = original_class(unwrapped(block))
    qualified = f"{kind.__module__}.{kind.__qualname__}"
    return _family_by_block().get(qualified)


def known_family(block: nn.Module) -> Family:
    """The family of a transformer block.

    Args:
        block: one of `transformer_blocks`, or a copy of one, compiled or not.

    Raises:
        UnsupportedModelError: no family has such a block.
    """
    if (family := family_of(block)) is None:
        raise unsupported("", f"{type(block).__module__}.{type(block).__qualname__} is no block of a known family")
    return family


def transformer_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Transformer blocks of known families, by dotted name."""
    return {name: module for name, module in named_modules(model) if family_of(module) is not None}


def coupled_pairs(model: nn.Module) -> tuple[CoupledPair, ...]:
    """All coupled pairs of a model, in the order of its blocks: QK, VO and FFN of each.

    Args:
        model: a model of a supported family, or any module that contains one.

    Returns:
        The pairs with their current widths.

    Raises:
        UnsupportedModelError: no supported block is there, or a part of the model cannot be cut exactly; the message
            names the module, the supported families and how to add one.

    Source: paper, coupled weight matrices of attention and feed-forward blocks.
    """
    refuse_sharded(model)
    model = unwrapped(model)
    blocks = transformer_blocks(model)
    _check_every_layer_is_known(model, blocks)
    pairs: list[CoupledPair] = []
    for name, block in blocks.items():
        found = list(known_family(block).find(name, block))
        _check_attention_is_original(model, block, found)
        _check_block_is_covered(name, block, found)
        pairs.extend(found)
    _check_nothing_is_shared(model, pairs)
    return tuple(pairs)


def refuse_joined_heads(model: nn.Module, pairs: Iterable[CoupledPair], modules: Container[str]) -> None:
    """Refuse to remove whole heads from attention modules whose heads are not independent of one another.

    Args:
        model: the model of the pairs.
        pairs: its pairs.
        modules: attention modules that would lose heads.

    Raises:
        UnsupportedModelError: names the first of them.
    """
    for pair in pairs:
        if pair.module in modules and (reason := known_family(model.get_submodule(pair.block)).joined_heads):
            raise unsupported(pair.module, reason, "keep all heads, and cut their widths")


def unsupported(module: str, reason: str, way_out: str = "") -> UnsupportedModelError:
    """The error for a part that cannot be cut exactly, with what is supported and how to go on."""
    known = ", ".join(family.name for family in families())
    advice = way_out or "leave this model whole, or add a family: one file in ecospa/families that defines FAMILY"
    return UnsupportedModelError(f"{module or 'the model'}: {reason}. Supported families: {known}. Way out: {advice}.")


def require_plain(projections: Mapping[str, nn.Module], kind: str = "Linear") -> None:
    """Refuse a projection that is not exactly a plain Linear or Conv1D: quantised, LoRA-wrapped, parametrised.

    Args:
        projections: modules by dotted name.
        kind: "Linear" or "Conv1D".

    Raises:
        UnsupportedModelError: names the first one that is something else.
    """
    homes = {"Linear": "torch.nn.modules.linear", "Conv1D": "transformers.pytorch_utils"}
    for name, module in projections.items():
        found, weight = type(module), getattr(module, "weight", None)
        if (found.__module__, found.__name__) != (homes[kind], kind):
            way_out = "merge adapters and undo quantisation or parametrisation first, cut, then wrap the model again"
            raise unsupported(name, f"it is a {found.__module__}.{found.__qualname__}, not a plain {kind}", way_out)
        if type(weight) is not nn.Parameter or not weight.dtype.is_floating_point:
            what = f"{type(weight).__name__} of {getattr(weight, 'dtype', 'no dtype')}"
            raise unsupported(
                f"{name}.weight", f"it is a {what}, not a plain parameter", "dequantise or gather it first"
            )


def _unknown_block(name: str, block: nn.Module) -> UnsupportedModelError:
    """The error for a block of no family, with the reason where there is one."""
    kind = qualified(type(block))
    reason = known_refusals().get(kind)
    return unsupported(name, f"{kind} is no known block" if reason is None else f"{kind} cannot be cut: {reason}")


def _check_every_layer_is_known(model: nn.Module, blocks: dict[str, nn.Module]) -> None:
    inside = tuple(f"{name}." for name in blocks)
    for name, module in named_modules(model):
        if isinstance(module, MergedLinear):
            raise unsupported(
                name, "projections are merged for inference", "call ecospa.split_projections(model) first"
            )
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or f"{name}.".startswith(inside):
            continue
        for child_name, child in module.named_children():
            repeated = sum(type(other) is type(child) for other in module.children()) > 1
            holds_weights = any(p.ndim > 1 for p in child.parameters()) and any(True for _ in child.children())
            known = any(f"{block}.".startswith(f"{name}.{child_name}.".lstrip(".")) for block in blocks)
            if repeated and holds_weights and not known:
                where = f"{name}.{child_name}".lstrip(".")
                raise _unknown_block(where, child)
    if not blocks:
        for name, module in named_modules(model):
            if qualified(type(module)) in known_refusals():
                raise _unknown_block(name, module)
        raise unsupported("", f"{qualified(type(model))} has no block of a known family")


def _check_attention_is_original(model: nn.Module, block: nn.Module, pairs: list[CoupledPair]) -> None:
    homes, stock = (original_class(block).__module__, "timm.layers.attention"), known_family(block).stock
    for pair in pairs:
        module = model.get_submodule(pair.module)
        if pair.kind is not PairKind.FFN and unwrapped(module) is not module:
            raise unsupported(pair.module, "it is compiled by itself", "compile the model, or whole blocks of it")
        kind = original_class(unwrapped(module))
        named = f"{kind.__module__}.{kind.__qualname__}" in stock.get(pair.module.removeprefix(f"{pair.block}."), ())
        if pair.kind is PairKind.QK and kind.__module__ not in homes and not named:
            raise unsupported(pair.module, f"{kind.__module__}.{kind.__qualname__} has a forward of its own")
        # a feed-forward keeps its forward when it is cut, whoever wrote it; an attention gets another
        if pair.kind is not PairKind.FFN and "forward" in vars(unwrapped(module)):
            raise unsupported(pair.module, "its forward was replaced on the instance", "remove the hook that did so")


def _check_block_is_covered(name: str, block: nn.Module, pairs: list[CoupledPair]) -> None:
    covered = {axis.parameter for pair in pairs for axis in pair.axes}
    prefix = f"{name}." if name else ""
    whole = known_family(block).whole
    for parameter, value in named_parameters(block).items():
        if value.ndim > 1 and prefix + parameter not in covered and parameter not in whole:
            reason = "this matrix belongs to no coupled pair (cross attention, adapter or another extra path?)"
            raise unsupported(prefix + parameter, reason)


def _check_nothing_is_shared(model: nn.Module, pairs: list[CoupledPair]) -> None:
    names: dict[int, list[str]] = {}
    known = named_parameters(model, remove_duplicate=False)
    for name, parameter in known.items():
        names.setdefault(id(parameter), []).append(name)
    for pair in pairs:
        for axis in pair.axes:
            if len(others := names[id(known[axis.parameter])]) > 1:
                raise unsupported(axis.parameter, f"it is one weight under several names ({', '.join(others)})")
