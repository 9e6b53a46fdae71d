"""Muon: momentum whose singular values are all set to about one, by torch's own optimizer.

Source: Jordan et al., Muon (2024), by `torch.optim.Muon`; the size of the step from Liu et al. (Moonlight, arXiv
2502.16982).
Equations: M <- 0.95 M + 0.05 G;  N = 0.95 M + 0.05 G (Nesterov);  O is N / |N| after five Newton-Schulz steps of a
quintic polynomial, in bfloat16: close to U V^T of N = U S V^T;  W <- W - lr 0.2 sqrt(max(out, in)) O
Faithful: matrices of the blocks alone, AdamW for embeddings, head, norms and biases. A fused matrix counts as one.
Changed: the step has the size of AdamW's ("match_rms_adamw", Moonlight), so that both parts share one rate; Jordan's
rule is another rate for the matrices.
One moment instead of two: half of AdamW's state. The budget's target is not looked at.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from baselines.method import TrainingMethod
from baselines.split_optimizer import SplitOptimizer, with_adamw


class Muon(TrainingMethod):
    """Trains the matrices of the blocks with momentum that is orthogonalised."""

    name: ClassVar[str] = "muon"
    title = "Muon"
    removes = "nothing"
    group = "memory-efficient training"
    reads_gradients: ClassVar[bool] = False

    def build_optimizer(self, model: nn.Module) -> SplitOptimizer:
        """Torch's Muon for the matrices of the blocks, AdamW for the rest."""
        return with_adamw(
            model,
            self.budget,
            lambda groups: torch.optim.Muon(
                [parameter for group in groups for parameter in group["params"]],
                lr=self.budget.learning_rate,
                weight_decay=self.budget.weight_decay,
                momentum=0.95,
                nesterov=True,
                adjust_lr_fn="match_rms_adamw",
            ),
        )
