"""ShortGPT: whole blocks go, those that change the direction of the hidden state least.

Source: Men et al. (arXiv 2403.03853), section 3: block influence; removal of the blocks of lowest influence.
Equations: BI_i = 1 - E_t[<x_{i,t}, x_{i+1,t}> / (|x_{i,t}| |x_{i+1,t}|)] with x_i what flows into block i.
Faithful: influences are measured once, on the whole model; no weight is changed and nothing is trained afterwards.
Changed: as many blocks go as the target allows without falling below it, so it lands within one block (`granularity`);
the paper names a number of blocks. Blocks of unequal size, as after another method: one that no longer fits is passed
over. Of equal influences the earlier block goes first. Padding is left out. One block always stays.
Extended: the paper has decoders only; the measure needs no more than a residual stream, so encoders are taken as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.calibration import Calibration, outputs
from baselines.method import Budget, TrainingMethod
from baselines.posttraining import PostTraining
from ecospa import UnsupportedModelError, coupled_pairs
from ecospa.families import transformer_blocks
from ecospa.pairs import CoupledPair, PairKind
from ecospa.surgery import shape_of


class ShortGPT(TrainingMethod):
    """One-shot removal of whole blocks by block influence."""

    name: ClassVar[str] = "shortgpt"
    title = "ShortGPT"
    removes = "structures"
    group = "structures by activations or weights"
    stage: ClassVar = "one-shot"
    needs_calibration: ClassVar[bool] = True
    granularity: ClassVar[str] = "block"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, reachable=most_removable))

    def _compress(self, model: nn.Module, excess: int) -> None:
        assert self.calibration is not None  # needs_calibration
        remove_blocks(model, least_influential(block_influence(model, self.calibration), block_sizes(model), excess))


@torch.no_grad()
def block_influence(model: nn.Module, calibration: Calibration) -> dict[str, float]:
    """How much every block turns the hidden state on average.

    BI_i = 1 - E_t[cos(x_{i,t}, x_{i+1,t})]

    Args:
        model: a model of any family; it runs in evaluation mode.
        calibration: tokens or images; positions whose "attention_mask" is 0 are left out.

    Returns:
        Block name -> BI in [0, 2], in the order of the blocks.

    Raises:
        ValueError: an influence is NaN or infinite.

    Source: ShortGPT, section 3.2.
    """
    blocks, was_training = transformer_blocks(model), model.training
    turned, counted = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0)
    mask: Tensor | None = None

    def measure(name: str) -> Any:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = result[0] if isinstance(result, tuple) else result
            turn = 1 - nn.functional.cosine_similarity(before.double(), after.double(), dim=-1)
            turned[name] += float((turn if mask is None else turn[mask.to(turn.device)]).sum())
            counted[name] += turn.numel() if mask is None else int(mask.sum())

        return hook

    hooks = [block.register_forward_hook(measure(name), with_kwargs=True) for name, block in blocks.items()]
    model.eval()
    try:
        for batch in calibration.batches:
            given = batch.get("attention_mask")
            mask = given.bool() if given is not None and given.ndim == 2 else None
            outputs(model, batch)
    finally:
        model.train(was_training)
        for registered in hooks:
            registered.remove()
    influence = {name: turned[name] / max(1, counted[name]) for name in blocks}
    for name, value in influence.items():
        if not math.isfinite(value):
            raise ValueError(f"{name}: its influence is {value}; look for broken weights or calibration data")
    return influence


def block_sizes(model: nn.Module) -> dict[str, int]:
    """Parameters of every block by name; they go with it, whatever the target's scope."""
    return {name: sum(p.numel() for p in block.parameters()) for name, block in transformer_blocks(model).items()}


def least_influential(influence: Mapping[str, float], sizes: Mapping[str, int], removable: int) -> list[str]:
    """Blocks of lowest influence, as many as fit.

    Args:
        influence: block name -> BI, in the order of the blocks.
        sizes: block name -> parameters.
        removable: parameters that may go at most.

    Returns:
        Names of the blocks that go, lowest influence first; of equal ones the earlier; never all of them.
    """
    gone: list[str] = []
    for name in sorted(influence, key=lambda name: influence[name]):  # a stable sort: equal ones stay in order
        if sizes[name] <= removable and len(gone) + 1 < len(influence):
            gone.append(name)
            removable -= sizes[name]
    return gone


def most_removable(model: nn.Module) -> int:
    """Parameters that go when only the smallest block stays.

    Raises:
        UnsupportedModelError: the blocks do not stand in one list.
    """
    _container(model)
    sizes = block_sizes(model).values()
    return sum(sizes) - min(sizes)


def remove_blocks(model: nn.Module, names: Collection[str]) -> None:
    """Take whole blocks out of a model in place; what is left has the numbers that a shallower model would have.

    Args:
        model: a model of any family whose blocks stand in one ModuleList or Sequential.
        names: dotted names of the blocks that go.

    Raises:
        ValueError: a name is no block, or no block would stay.
        UnsupportedModelError: the blocks do not stand in one list.
    """
    blocks = list(transformer_blocks(model))
    if unknown := sorted(set(names) - set(blocks)):
        raise ValueError(f"names holds {unknown[0]!r}; the blocks are {', '.join(blocks)}")
    if len(set(names)) >= len(blocks):
        raise ValueError(f"names holds all {len(blocks)} blocks; at least one must stay")
    container = _container(model)
    kept = [number for number, name in enumerate(blocks) if name not in names]
    if len(kept) == len(blocks):
        return
    for pair in coupled_pairs(model):
        if pair.kind is PairKind.QK and pair.block not in names:
            _renumber(model, pair, kept.index(blocks.index(pair.block)))
    for number in reversed([number for number in range(len(blocks)) if number not in kept]):
        del container[number]
    _tell_configs(model, container, kept, len(blocks))


def _container(model: nn.Module) -> nn.ModuleList | nn.Sequential:
    """The list that holds all blocks of a model and nothing else."""
    coupled_pairs(model)  # says what is wrong where there is no block at all
    blocks = transformer_blocks(model)
    parents = {name.rpartition(".")[0] for name in blocks}
    container = model.get_submodule(next(iter(parents)))
    if len(parents) > 1 or not isinstance(container, (nn.ModuleList, nn.Sequential)) or len(container) != len(blocks):
        raise UnsupportedModelError(
            f"{type(model).__name__}: its blocks do not stand in one ModuleList or Sequential of their own "
            f"({', '.join(sorted(parents))}); give the part of the model that has one stack of blocks"
        )
    return container


@torch.no_grad()
def _renumber(model: nn.Module, pair: CoupledPair, number: int) -> None:
    """The attention of a block takes another number: by it, it finds its keys and values in a cache."""
    attention: Any = model.get_submodule(pair.module)
    if getattr(attention, "scale_attn_by_inverse_layer_idx", False):
        # a loaded checkpoint scales scores by the new number: the queries make up for it
        new = (attention.head_dim**-0.5 if attention.scale_attn_weights else 1.0) / float(number + 1)
        for axis in pair.left:
            queries = model.get_parameter(axis.parameter).data.movedim(axis.axis, 0)
            queries[axis.index.flatten().to(queries.device)] *= attention.scaling / new
        attention.scaling = new
    for module in model.get_submodule(pair.block).modules():
        if isinstance(getattr(module, "layer_idx", None), int):
            module.layer_idx = number  # type: ignore[assignment]


def _tell_configs(model: nn.Module, container: nn.Module, kept: list[int], depth: int) -> None:
    """Depth, per-layer lists and ecospa's own entry of every transformers config, and timm's list of features."""
    seen: set[int] = set()
    for module in model.modules():  # an outer model comes before the inner one that shares its config
        config: Any = getattr(module, "config", None)
        if id(config) in seen or getattr(config, "num_hidden_layers", None) != depth:
            continue
        seen.add(id(config))
        config.num_hidden_layers = len(kept)
        for name, value in list(vars(config).items()):
            if "layer" in name and isinstance(value, (list, tuple)) and len(value) == depth:
                setattr(config, name, type(value)(value[number] for number in kept))
        if old := getattr(config, "ecospa", None):
            place = next(name for name, part in module.named_modules() if part is container)
            config.ecospa = {**old, **shape_of(module), "biases": _renamed(old.get("biases", ()), place, kept)}
    features: Any = getattr(model, "feature_info", None)
    if isinstance(features, list) and len(features) == depth:
        del features[len(kept) :]  # the entries differ in their number alone


def _renamed(names: Iterable[str], place: str, kept: list[int]) -> list[str]:
    """Dotted names by the new numbers of the blocks; those inside blocks that are gone are left out."""
    found = []
    for name in names:
        inside = re.fullmatch(rf"{re.escape(place)}\.(\d+)\.(.+)", name)
        if inside is None:
            found.append(name)
        elif int(inside[1]) in kept:
            found.append(f"{place}.{kept.index(int(inside[1]))}.{inside[2]}")
    return found
