"""ReLoRA: adapters that are merged and begun anew several times, so that low-rank updates add up to one of high rank.

Source: Lialin et al. (arXiv 2307.05695), algorithm 1 and section 3; their code for the bounds. As a baseline of
pre-training in Zhao et al. (GaLore, arXiv 2403.03507). The adapters are those of the peft library.
Equations: h = W x + (alpha / r) B A x with W frozen. At a reset, after every quarter of the run,
    W <- W + (alpha / r) B A,  A by Kaiming's uniform rule,  B = 0              (the function stays what it was)
    in every tensor of the optimizer's state of A and B the 99 % of smallest magnitude become 0
and step k behind it, k = 1, ..., K, is made with the learning rate times k / K.
Faithful: merge, new beginning, partial reset of the state by magnitude, re-warm-up of the learning rate of everything
that trains ("jagged" schedule, whatever the experiment's own is). Adapters at every projection of the blocks;
embeddings, norms, biases and head go on training. A reset after a quarter of the run is the paper's 5,000 of 20,000
steps; K is 100 as there, in short runs a tenth of a quarter (at least 1). Adam's step count is not reset. The share of
99 % is the paper's; configurations in the released code have 90 %.
Changed: no full-rank training at the start, as in GaLore's comparison, so that memory is saved from the first step on;
the paper trains about a quarter of the run so, and says that it matters. Rank, alpha and no dropout as in `lora`.
It does not shrink: the budget's target, interval and curve are not looked at.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.adapters import adapter_layers, adapter_weights, initialise
from baselines.lora import ALPHA, AdapterTraining, adapter_rank
from baselines.method import Budget, TrainingMethod, TrainingState


class ReLoRA(TrainingMethod):
    """Trains adapters and merges them after every quarter of the run."""

    name: ClassVar[str] = "relora"
    title = "ReLoRA"
    removes = "nothing"
    group = "memory-efficient training"
    reads_gradients: ClassVar[bool] = False
    cycles: ClassVar[int] = 4
    warmup_share: ClassVar[float] = 0.1
    warmup_limit: ClassVar[int] = 100
    pruned_state: ClassVar[float] = 0.99

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, AdapterTraining(adapter_rank, ALPHA, budget.seed, train_rest=True))
        self._rate = ScaledRate()

    @property
    def reset_interval(self) -> int:
        """Optimizer steps between two resets."""
        return -(-self.budget.total_steps // self.cycles)

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps after a reset until the learning rate is the experiment's again: K."""
        return min(self.warmup_limit, max(1, int(self.warmup_share * self.reset_interval)))

    def after_backward(self, state: TrainingState) -> None:
        """Set the learning rate of the coming step."""
        super().after_backward(state)
        self._rate.attach(_unwrapped(state.optimizer))
        self._rate.factor = rewarming(state.step, self.reset_interval, self.warmup_steps)

    def after_step(self, state: TrainingState) -> None:
        """Merge and begin anew, if it is time; the end merges anyway."""
        super().after_step(state)
        if state.step % self.reset_interval == 0 and 0 < state.step < self.budget.total_steps:
            restart(state.model, self.budget.seed, state.step)
            for layer in adapter_layers(state.model).values():
                for weight in adapter_weights(layer):
                    prune_state(_unwrapped(state.optimizer), weight, self.pruned_state)

    def finish(self, state: TrainingState) -> None:
        """Merge for the last time and let go of the optimizer."""
        self._rate.detach()
        super().finish(state)


def restart(model: nn.Module, seed: int, step: int) -> None:
    """Merge all adapters into their weights and begin anew; the function stays what it was.

    W <- W + (alpha / r) B A, A <- Kaiming uniform, B <- 0

    Args:
        model: a model with adapters.
        seed: of the run.
        step: optimizer steps completed; with the seed it decides A.

    Source: arXiv 2307.05695, algorithm 1.
    """
    for layer in adapter_layers(model).values():
        layer.merge()
        layer.merged_adapters.clear()  # to peft the adapter is now one that was never merged
    initialise(model, seed, step)


@torch.no_grad()
def prune_state(optimizer: Any, parameter: Tensor, share: float) -> None:
    """Set the share of smallest magnitude of every state tensor of a parameter to zero; scalars stay.

    s_i <- 0 where |s_i| <= the floor(share n)-th smallest of n magnitudes

    Args:
        optimizer: holds the state; None has none.
        parameter: whose state is meant.
        share: in [0, 1].

    Raises:
        ValueError: the share is out of range.

    Source: arXiv 2307.05695, section 3, partial reset of the optimizer.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}; it must lie in [0, 1]")
    state = {} if optimizer is None else optimizer.state.get(parameter, {})
    for value in state.values():
        if isinstance(value, Tensor) and value.ndim > 0 and (count := int(share * value.numel())):
            size = value.abs()
            value.masked_fill_(size <= size.flatten().kthvalue(count).values, 0)


def rewarming(step: int, interval: int, warmup: int) -> float:
    """Factor of the learning rate of the step after `step` completed ones: k / K for the k-th step behind a reset.

    Args:
        step: optimizer steps completed.
        interval: steps between two resets; the first is after so many.
        warmup: K, at least 1.

    Source: arXiv 2307.05695, section 3, jagged cosine schedule.
    """
    return 1.0 if step < interval else min(1.0, (step % interval + 1) / warmup)


class ScaledRate:
    """Multiplies an optimizer's learning rates by `factor` while it makes a step, and only then.

    Schedules set the rates between steps, from their own formula or from the last rates; neither notices anything.
    """

    def __init__(self) -> None:
        self.factor = 1.0
        self._optimizer: Any = None
        self._rates: list[Any] = []
        self._hooks: list[Any] = []

    def attach(self, optimizer: Any) -> None:
        """Act on the steps of this optimizer from now on; None has no steps."""
        if optimizer is self._optimizer:
            return
        self.detach()
        self._optimizer = optimizer
        if optimizer is not None:
            self._hooks = [
                optimizer.register_step_pre_hook(self._scale),
                optimizer.register_step_post_hook(self._restore),
            ]

    def detach(self) -> None:
        """Let go of the optimizer."""
        for hook in self._hooks:
            hook.remove()
        self._optimizer, self._hooks = None, []

    def _scale(self, optimizer: Any, *_: Any) -> None:
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.factor

    def _restore(self, optimizer: Any, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate


def _unwrapped(optimizer: Any) -> Any:
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer
