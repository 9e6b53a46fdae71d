"""Proof that a model can be cut, and that a cut one agrees with itself: every block tried, every shape compared.

Attaching to a model tries only the blocks that are not stock; this tries all of them, whatever they are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.attention import CoupledAttention
from ecospa.dense import dense_shape
from ecospa.exactness import BlockCheck, check_block
from ecospa.families import coupled_pairs, transformer_blocks
from ecospa.pairs import CoupledPair, PairKind
from ecospa.surgery import apply_plan, shape_of
from ecospa.wrappers import unwrapped


@dataclass(frozen=True)
class Verification:
    """Findings of `verify`.

    Attributes:
        blocks: one check per transformer block.
        disagreements: places where the model does not agree with itself, in words.
    """

    blocks: tuple[BlockCheck, ...]
    disagreements: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """True if every block can be cut without becoming another function, and the model agrees with itself."""
        return not self.disagreements and not any(block.problem for block in self.blocks)

    def __str__(self) -> str:
        """A Markdown table of the blocks, then what disagrees, then the verdict."""
        rows = [
            f"| {one.block} | {'; '.join(one.foreign) or 'stock'} | {one.difference:.1e} | {one.problem or 'exact'} |"
            for one in self.blocks
        ]
        table = ["| block | parts | cut - zeroed | verdict |", "|---|---|---|---|", *rows, ""]
        wrong = [f"- {text}" for text in self.disagreements]
        verdict = "Every block can be cut exactly, and the model agrees with itself."
        failed = sum(bool(one.problem) for one in self.blocks)
        if not self.exact:
            verdict = f"{failed} of {len(self.blocks)} blocks cannot be cut; {len(wrong)} disagreements."
        return "\n".join([*table, *wrong, verdict])


def verify(model: nn.Module) -> Verification:
    """Try every block of a model on a copy, and compare its shapes, its index buffers and its config.

    A copy of each block gets random weights in float64 and is cut; outputs and gradients must be those of the copy with
    the same entries at zero. Of a cut model the blocks as they are now are cut further.

    Args:
        model: a model of a supported family with weights, cut or whole; it is not changed. Hooks of your own see the
            random hidden states.

    Returns:
        What was found; `exact` is the verdict, and printing it gives a table.

    Raises:
        UnsupportedModelError: the model has no pairs that could be cut.

    Source: the paper's removal of coupled rows and columns, of which the zeroed model is the definition.
    """
    model = unwrapped(model)
    pairs = coupled_pairs(model)
    blocks = tuple(check_block(name, block, apply_plan) for name, block in transformer_blocks(model).items())
    return Verification(blocks, tuple(_disagreements(model, pairs)))


def verify_folder(folder: str | Path) -> Verification:
    """Load a checkpoint, which checks its files against their manifest, and verify the model.

    Args:
        folder: that `save_pretrained` or a trainer wrote.

    Raises:
        CheckpointError: a file is missing, truncated or edited, or does not fit the others.
        UnsupportedModelError: the model has no pairs that could be cut.
    """
    from ecospa.checkpoint import from_pretrained

    return verify(from_pretrained(folder))


def _disagreements(model: nn.Module, pairs: tuple[CoupledPair, ...]) -> Iterator[str]:
    yield from _uncovered(model, pairs)
    for pair in pairs:
        module: Any = model.get_submodule(pair.module)
        if pair.kind is PairKind.QK and isinstance(module, CoupledAttention) and module.geometry.tracked:
            if wrong := _wrong_indices(module.kept_qk, pair, module.geometry.head_width):
                yield f"{pair.module}.kept_qk {wrong}"
    yield from _wrong_records(model)


def _uncovered(model: nn.Module, pairs: tuple[CoupledPair, ...]) -> Iterator[str]:
    """Weights whose positions are not each in one pair: their shape is not what the widths say."""
    positions: dict[str, tuple[int, list[Tensor]]] = {}
    for pair in pairs:
        for axis in pair.axes:
            positions.setdefault(axis.parameter, (axis.axis, []))[1].append(axis.index.flatten())
    for name, (axis_number, found) in positions.items():
        size, covered = model.get_parameter(name).shape[axis_number], torch.cat(found).sort().values
        if not torch.equal(covered, torch.arange(size, device="cpu")):
            yield f"{name} has {size} positions along axis {axis_number}, the widths say {len(covered)}"
        module: Any = model.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.Linear) and tuple(module.weight.shape) != (module.out_features, module.in_features):
            yield f"{name} has shape {tuple(module.weight.shape)}, its module says otherwise"


def _wrong_indices(kept: Tensor, pair: CoupledPair, head_width: int) -> str:
    kept = kept.cpu()
    if tuple(kept.shape) != (pair.groups, pair.width):
        return f"has shape {tuple(kept.shape)}, the widths say {(pair.groups, pair.width)}"
    half = kept[:, : pair.units]
    outside = bool((kept < 0).any()) or bool((kept >= head_width).any())
    if outside or bool((half.diff(dim=1) <= 0).any()):
        return f"holds indices that are not ascending within the original head width {head_width}"
    if pair.unit == 2 and not torch.equal(half + head_width // 2, kept[:, pair.units :]):
        return "splits rotary partners"
    return ""


def _wrong_records(model: nn.Module) -> Iterator[str]:
    now = shape_of(model)
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_dict") or not hasattr(model, "save_pretrained"):
        return
    recorded = getattr(config, "ecospa", None)
    is_cut = any(now["widths"][name] != width for name, (_, width) in dense_shape(model).items())
    if recorded is None and is_cut:
        yield "config.ecospa is missing, although the model was cut"
    if recorded is not None:
        for key in ("widths", "heads"):
            wrong = [name for name, count in now[key].items() if recorded.get(key, {}).get(name, count) != count]
            yield from (
                f"config.ecospa says {recorded[key][name]} for {name}, the model has {now[key][name]}" for name in wrong
            )
