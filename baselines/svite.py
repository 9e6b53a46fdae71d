"""S2ViTE: a vision transformer of the target size from the first step on, which keeps exchanging its heads and neurons.

Source: Chen et al., "Chasing Sparsity in Vision Transformers" (arXiv 2106.04533), the structured variant S2ViTE; what
the paper leaves open is as in the code released with it.
Equations: at the event of step t, in every layer on its own, n = ceil(f(t) * live) structures go and n come;
    f(t) = alpha / 2 * (1 + cos(pi (t - start) / (end - start))), alpha = 1/2
    head h:   drop score |<A_h, dL/dA_h>|, A_h its output     neuron j:   drop score |W1_j|_1 + |W2_j|_1
    growth score of both: |dL/dW|_1 over the columns of W_O or W2 that read the structure
The lowest go, the highest come; what has just been dropped may come back at once, and then stays as it is. Gradients
are those of the step that the event follows.
Faithful: constant size; drop and grow per layer; both drop scores; cosine decay; growth from zero.
Changed: <A_h, dL/dA_h> is taken over the whole batch, where it equals <W_O[:, h], dL/dW_O[:, h]> and needs no
activations; the released code averages its absolute value over images.
What is dead is dead on its output side: its columns of W_O or W2 are zero and get no gradient, its other weights are
frozen where they were. The released code zeroes W_Q, W_K, W_V, or W1 and W2, and keeps W_O and all biases; there a head
grows by |dL/dA_h|_1, which is zero here, and a neuron also by the gradient of W1, which is zero for a dead one. The
gradient of W_O or W2 says how much regrowth would change, and all of a dead structure can be cut in `finish`, so that
the final model is really smaller.
The first live ones are those of largest |W|_1 instead of random ones: of fresh weights none is better than another, and
a trained model is not destroyed. All layers keep the same share (heads rounded down, neurons make up for it, as in
baselines.wanda_sp). Nothing changes any more from end_step on, so a run of one event only has no exchange. No token
selector. Widths are not rounded to width_multiple. While it trains, the dead are stored, and no time is saved.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.dead_structures import DeadStructures
from baselines.method import Budget, HistoryEntry, TrainingMethod, TrainingState, size_entry
from baselines.structure_axes import StructureAxis, along, per_structure, removable, structure_axes
from baselines.structures import cut, structures
from baselines.wanda_sp import uniform_shares
from ecospa import SkippedEventWarning

ALPHA = 0.5
"""Share of a layer's live structures that events exchange at first."""


class SViTE(TrainingMethod):
    """Structured dynamic sparse training of vision transformers."""

    name: ClassVar[str] = "svite"
    title = "S2ViTE"
    removes = "structures"
    group = "structures by gradients"
    architectures: ClassVar[frozenset[str]] = frozenset({"timm_vit", "vit"})

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, DropAndGrow(budget))


class DropAndGrow:
    """Exchanges live structures for dead ones at events (a `baselines.method.Shrinker`).

    Attributes:
        dead: keeps those dead that are; knows which are live.
    """

    def __init__(self, budget: Budget) -> None:
        self.config, self.end_step, self.interval = budget.config(), budget.end_step, budget.interval
        self.history: list[HistoryEntry] = []
        self.dead = DeadStructures()
        self._step, self._done = 0, False
        self._seen: dict[str, Tensor] = {}  # gradients of output matrices in the step before an event
        self._scores: dict[str, tuple[Tensor, Tensor]] = {}  # by which to drop, by which to grow

    def start(self, model: nn.Module) -> None:
        """Bring a whole model to the target size at once.

        Raises:
            ConfigError: the target cannot be reached with this model.
        """
        excess = removable(model, self.config.target_size, self.config.target_scope)
        self.dead.begin(model, first_live(model, excess))
        self._step, self._done = 0, False
        self.history[:] = [size_entry(0, model, self.removed(model), self.dead.widths(model))]

    def attach(self, model: nn.Module) -> None:
        """Meet the model that will be trained: what is dead gets no gradient from here on.

        Raises:
            ValueError: it is another model than before, or what should be dead in it is not zero.
        """
        if self._done:
            return
        if not self.history:
            self.start(model)
        self.dead.attach(model, self._watch)

    def after_backward(self, state: TrainingState) -> None:
        """Judge the structures, before an event, by weights and gradients that belong together."""
        self.attach(state.model)
        kinds = structures(state.model).heads if self._seen else {}
        self._scores = {name: self._judge(state.model, name, name in kinds) for name in self._seen}

    def after_step(self, state: TrainingState) -> None:
        """Keep dead what is dead, and exchange structures if an event is due."""
        self.attach(state.model)
        self.dead.restore()
        if self._due(state.step) and not self._done:
            self._exchange(state)
        self._seen, self._scores, self._step = {}, {}, state.step

    def finish(self, state: TrainingState) -> None:
        """Cut out what is dead, once; what the model computes stays the same."""
        if self._done:
            return
        self.attach(state.model)
        self.dead.detach()
        cut(state.model, self.dead.kept(state.model), state.optimizer)
        self._done = True

    def removed(self, model: nn.Module) -> int:
        """Parameters that the model stores for what is dead."""
        return 0 if self._done else self.dead.removed(model)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {
            "history": [dict(entry) for entry in self.history],
            "live": self.dead.state_dict(),
            "step": self._step,
            "done": self._done,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; `attach` or the next hook brings the model."""
        self.history[:] = [dict(entry) for entry in state["history"]]
        self.dead.load_state_dict(state["live"])
        self._step, self._done = int(state["step"]), bool(state["done"])
        self._seen, self._scores = {}, {}

    def _due(self, step: int) -> bool:
        past = step - self.config.start_step
        return past > 0 and past % self.interval == 0 and step < self.end_step

    def _watch(self, name: str, grad: Tensor) -> None:
        if self._due(self._step + 1):  # micro-batches add up
            self._seen[name] = self._seen[name] + grad if name in self._seen else grad.clone()

    def _judge(self, model: nn.Module, name: str, is_attention: bool) -> tuple[Tensor, Tensor]:
        weight, part = self.dead.output(name)
        grad = self._seen[name].double()
        growth = per_structure(along(grad.abs(), part.axis), part).cpu()
        if is_attention:
            return per_structure(along(weight.detach() * grad, part.axis), part).abs().cpu(), growth
        return l1_norms(model, self.dead.axes[name]), growth

    def _exchange(self, state: TrainingState) -> None:
        broken = [name for name, scores in self._scores.items() if not bool(torch.stack(scores).isfinite().all())]
        if broken or not self._scores:
            reason = f"the gradient of {broken[0]} is NaN or infinite" if broken else "no gradient was seen"
            warnings.warn(f"step {state.step}: {reason}; nothing was exchanged", SkippedEventWarning, stacklevel=3)
            return
        share = swap_share(state.step, self.config.start_step, self.end_step)
        live = {
            name: drop_and_grow(self.dead.live[name], drop, growth, share)
            for name, (drop, growth) in self._scores.items()
        }
        self.dead.change(live, state.optimizer)


def swap_share(step: int, start: int, end: int) -> float:
    """Share of a layer's live structures that the event of a step exchanges.

    f(t) = alpha / 2 * (1 + cos(pi (t - start) / (end - start)))

    Args:
        step: t, optimizer steps completed, in [start, end].
        start: optimizer steps before the first event.
        end: optimizer step from which on nothing changes any more.

    Source: RigL (arXiv 1911.11134), section 3, as arXiv 2106.04533 takes it over.
    """
    return ALPHA / 2 * (1 + math.cos(math.pi * (step - start) / (end - start)))


def drop_and_grow(live: Tensor, drop: Tensor, growth: Tensor, share: float) -> Tensor:
    """The live structures of a layer after an event, as many as before.

    Args:
        live: int64 (live,), ascending numbers.
        drop: (structures,), the live ones of lowest score are dropped; of equal ones the earlier.
        growth: (structures,), of all that are not live then, those of highest score come; of equal ones the earlier.
        share: n = ceil(share * live) go and come, in [0, 1].

    Returns:
        int64 (live,), ascending.

    Source: arXiv 2106.04533, structured exploration.
    """
    count = math.ceil(share * len(live) - 1e-9)
    stays = live[torch.sort(drop[live], stable=True).indices[count:]]
    others = torch.arange(len(growth), device=live.device)
    others = others[~torch.isin(others, stays)]
    grown = others[torch.sort(growth[others], descending=True, stable=True).indices[:count]]
    return torch.cat([stays, grown]).sort().values


def first_live(model: nn.Module, excess: int) -> dict[str, Tensor]:
    """The heads and neurons that live at first: in every layer the same share, those of largest |W|_1.

    Args:
        model: a whole model.
        excess: parameters that may be dead at most.

    Returns:
        Attention module or FFN pair -> int64, ascending numbers; of equal norms the earlier lives.
    """
    gone, live = uniform_shares(model, excess), {}
    for name, axes in structure_axes(model).items():
        order = torch.sort(l1_norms(model, axes), descending=True, stable=True).indices
        live[name] = order[: len(order) - gone[name]].sort().values
    return live


@torch.no_grad()
def l1_norms(model: nn.Module, axes: list[StructureAxis]) -> Tensor:
    """Sum of the absolute values of all matrices of every structure of a module: float64 (structures,), on the CPU."""
    parts = [per_structure(along(model.get_parameter(p.parameter).abs(), p.axis), p) for p in axes if p.matrix]
    return torch.stack(parts).sum(0).cpu()
