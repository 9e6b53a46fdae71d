"""Initial weights that depend on depth: residual branches that add up to the variance of one.

GPT-2 scales the matrices that write into its residual stream by 1 / sqrt(2 L) when it is made; transformers' LLaMA does
not, and a small one then hardly trains. A model that is to be scaled says so in its `config`, so that a method that
makes a fresh one of the same kind scales it, too.
"""

from __future__ import annotations

from typing import Any

import torch

from ecospa import coupled_pairs
from ecospa.families import transformer_blocks
from ecospa.pairs import PairKind, pair_matrices

SCALED = "scaled_residual_outputs"
"""Name in a model's `config`: its fresh weights are scaled."""


@torch.no_grad()
def scale_residual_outputs(model: Any) -> None:
    """Scale W_O and W_out of every block, in place, if the model's `config` asks for it.

    W <- W / sqrt(2 L), L blocks with two residual branches each

    Args:
        model: freshly made, of a supported family.

    Source: GPT-2 (Radford et al. 2019, Section 2.3).
    """
    for name, factor in residual_factors(model).items():
        model.get_parameter(name).mul_(factor)


def residual_factors(model: Any) -> dict[str, float]:
    """Parameter that is to be scaled -> 1 / sqrt(2 L); none if the model's `config` does not ask for it.

    Args:
        model: of a supported family, its blocks built of pairs.
    """
    if not getattr(getattr(model, "config", None), SCALED, False):
        return {}
    named: dict[str, Any] = dict(model.named_parameters())
    factor = (2 * len(transformer_blocks(model))) ** -0.5
    return {
        axis.parameter: factor
        for pair in coupled_pairs(model)
        if pair.kind is not PairKind.QK
        for side, axis in pair_matrices(pair, named)
        if side == "right"
    }
