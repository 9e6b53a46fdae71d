"""Optimizers of the library pytorch-optimizer (extra `peers`), with what their authors give: peers nobody here wrote.

Sources and equations, G the gradient of a weight, M and V its moments:
    fira         Chen et al. (arXiv 2410.01623): GaLore's step, and what the projection drops of G, scaled by columns:
                 P N + |N_j| / |R_j| (G - P R), R = P^T G, N = Adam(R); the second term grows by at most 1 % per step
    soap         Vyas et al. (arXiv 2409.11321): Adam in the eigenbases of the averages of G G^T and G^T G, made anew
                 by one QR step in every tenth step; the first step only fills these averages
    conda        Wang et al. (arXiv 2509.24218): Adam's V of U^T G and its M as U^T M, U the singular vectors of M on
                 its smaller side, every 2000 steps; back by U and 0.25
    stable_spam  Huang et al. (arXiv 2502.17056): entries of G above an average of the largest are clipped to it, G is
                 scaled to an average of its norm over a root mean square of it, then Adam; M and V begin anew every
                 1000 steps
    alice        Gong et al. (arXiv 2502.07752): Adam in a subspace of r directions, of which 40 of 128 are the leading
                 eigenvectors of an average of G G^T and the others are drawn from the rest, every 200 steps; what lies
                 outside is scaled by column (factor 0.4)
Faithful: the matrices of the blocks, AdamW for the rest; `stable_spam` for all parameters. Hyper-parameters of the
authors' scripts for LLaMA: fira rank a quarter of the smaller side, gap 200, scale 0.25; conda scale 0.25, gap 2000,
betas (0.9, 0.99); soap betas (0.95, 0.95); stable_spam 0.7, 0.9, 0.999; alice scale 0.3, betas (0.9, 0.9, 0.999).
Where the library is not the paper: `fira` multiplies the part of G in the subspace by the scale before it is taken from
G, as the authors' code does; `alice` begins in the span of the first r coordinates, and always projects the side that
a weight is stored with first. Its APOLLO and RACS differ from their papers: apollo.py, racs.py.
Changed: `alice` has 20 times the rate of the rest, its authors' 0.02 and Adam's usual 0.001. Between steps the
library's objects are kept as tensors, so that bytes are counted and a checkpoint resumes.
No target is looked at. Against AdamW's two numbers per entry, `fira` and `alice` hold less, `conda` and `soap` more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.galore import RANK_SHARE, SCALE, UPDATE_GAP
from baselines.method import Budget, TrainingMethod
from baselines.split_optimizer import SplitOptimizer, by_rank, with_adamw
from ecospa import ConfigError

ALICE_RATE = 20
"""The authors' rate for matrices, 0.02, by that of the other parameters, 0.001."""
ALICE_LEADING = 40 / 128


class LibraryMethod(TrainingMethod, ABC):
    """Trains the dense model with an optimizer of the library pytorch-optimizer; abstract."""

    reads_gradients: ClassVar[bool] = False

    def accept(self, model: nn.Module, calibration: Any) -> None:
        """Refuse to begin without the library.

        Raises:
            ConfigError: the library is not installed.
        """
        super().accept(model, calibration)
        find_library(self.name)

    def build_optimizer(self, model: nn.Module) -> SplitOptimizer:
        """The library's optimizer for the matrices of the blocks, AdamW for the rest."""
        return with_adamw(model, self.budget, self.rule)

    @abstractmethod
    def rule(self, groups: list[dict[str, Any]]) -> LibraryPart:
        """The optimizer of groups of matrices."""

    def part(self, kind: str, groups: list[dict[str, Any]], draws: bool = False, **options: Any) -> LibraryPart:
        """An optimizer of the library with the budget's rate and decay, unless an option says otherwise."""
        rates = {"lr": self.budget.learning_rate, "weight_decay": self.budget.weight_decay}
        made = getattr(find_library(self.name), kind)(groups, **{**rates, **options})
        return LibraryPart(made, self.budget, draws)


class Fira(LibraryMethod):
    """GaLore's step plus what its projection drops of the gradient, scaled by column."""

    name: ClassVar[str] = "fira"
    title = "Fira"
    removes = "nothing"
    group = "memory-efficient training"

    def rule(self, groups: list[dict[str, Any]]) -> LibraryPart:
        """Ranks as in `galore`."""
        options = {"update_proj_gap": UPDATE_GAP, "scale": SCALE, "projection_type": "std"}
        ranked = [{**group, **options} for group in by_rank(groups, RANK_SHARE)]
        return self.part("Fira", ranked, foreach=False)


class Soap(LibraryMethod):
    """Adam in the eigenbases of Shampoo's preconditioner."""

    name: ClassVar[str] = "soap"
    title = "SOAP"
    removes = "nothing"
    group = "optimizers with more state"

    def rule(self, groups: list[dict[str, Any]]) -> LibraryPart:
        """Eigenbases of both sides, up to 10,000 wide."""
        return self.part("SOAP", groups, betas=(0.95, 0.95), precondition_frequency=10)


class Conda(LibraryMethod):
    """Adam whose second moment is that of the gradient in the singular basis of the first."""

    name: ClassVar[str] = "conda"
    title = "Conda"
    removes = "nothing"
    group = "optimizers with more state"

    def rule(self, groups: list[dict[str, Any]]) -> LibraryPart:
        """The smaller side is projected."""
        return self.part("Conda", groups, betas=(0.9, 0.99), update_proj_gap=2000, scale=0.25, foreach=False)


class StableSpam(LibraryMethod):
    """Adam on gradients without spikes, whose moments begin anew every 1000 steps."""

    name: ClassVar[str] = "stable_spam"
    title = "Stable-SPAM"
    removes = "nothing"
    group = "optimizers with more state"

    def build_optimizer(self, model: nn.Module) -> SplitOptimizer:
        """The library's optimizer for all parameters."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return SplitOptimizer([self.rule([{"params": trained}])])

    def rule(self, groups: list[dict[str, Any]]) -> LibraryPart:
        """No decay of the first moment's coefficient, which the authors leave off."""
        return self.part("StableSPAM", groups, gamma1=0.7, gamma2=0.9, theta=0.999, update_proj_gap=1000)


class Alice(LibraryMethod):
    """Adam in a switched subspace of a quarter of the rank, and a scaled step outside of it."""

    name: ClassVar[str] = "alice"
    title = "Alice"
    removes = "nothing"
    group = "memory-efficient training"

    def rule(self, groups: list[dict[str, Any]]) -> LibraryPart:
        """Ranks as in `galore`; of r directions 40 of 128 lead."""
        ranked = [
            {**group, "leading_basis": max(1, round(ALICE_LEADING * group["rank"]))}
            for group in by_rank(groups, RANK_SHARE)
        ]
        rate = ALICE_RATE * self.budget.learning_rate
        decay = self.budget.weight_decay / ALICE_RATE  # so that their product is that of the rest
        return self.part("Alice", ranked, draws=True, lr=rate, weight_decay=decay, update_interval=UPDATE_GAP)


class LibraryPart:
    """An optimizer of the library whose state, between two steps, is tensors and numbers alone.

    Args:
        optimizer: of the library.
        budget: its seed decides what the optimizer draws.
        draws: whether it draws random numbers.
    """

    def __init__(self, optimizer: Any, budget: Budget, draws: bool) -> None:
        self.optimizer, self._seed, self._draws = optimizer, budget.seed, draws

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the library's optimizer."""
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        return groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.optimizer.param_groups = groups

    @property
    def state(self) -> Any:
        """That of the library's optimizer, packed."""
        return self.optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        self.optimizer.state = state

    def step(self) -> None:
        """Unpack, make a step, pack."""
        first = self.param_groups[0]
        if hasattr(self.optimizer, "total_step"):  # an attribute that no checkpoint would hold
            self.optimizer.total_step = first.get("total_step", 0)
        for group in self.param_groups:
            for parameter in group["params"]:
                unpack(self.state[parameter], group)
        devices = {parameter.device for parameter in first["params"] if parameter.device.type == "cuda"}
        with torch.random.fork_rng(list(devices)) if self._draws else nullcontext():
            if self._draws:  # seed and step alone decide, so that a resumed run draws what an uninterrupted one does
                torch.manual_seed(self._seed * 1_000_003 + first.get("step", 0))
            self.optimizer.step()
        for group in self.param_groups:
            for parameter in group["params"]:
                pack(self.state[parameter])
        if hasattr(self.optimizer, "total_step"):
            first["total_step"] = self.optimizer.total_step


def pack(state: dict[str, Any]) -> None:
    """Turn objects and lists of one parameter's state into tensors and numbers, in place.

    Args:
        state: a "projector" becomes "projection" and "projection_step", and the items of a list under "Q" become
            "Q.0", "Q.1", without those that are empty.
    """
    projector = state.pop("projector", None)
    if projector is not None:
        state["projection"], state["projection_step"] = projector.ortho_matrix, projector.last_svd_step
    for name in [name for name, value in state.items() if isinstance(value, list)]:
        for place, item in enumerate(state.pop(name)):
            if isinstance(item, Tensor):
                state[f"{name}.{place}"] = item


def unpack(state: dict[str, Any], group: dict[str, Any]) -> None:
    """Undo `pack`, in place.

    Args:
        state: of one parameter; empty before its first step.
        group: options of its projector.
    """
    if "projection" in state:
        from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector

        projector = GaLoreProjector(
            group.get("rank"), group["update_proj_gap"], group["scale"], group["projection_type"]
        )
        projector.ortho_matrix, projector.last_svd_step = state.pop("projection"), state.pop("projection_step")
        state["projector"] = projector
    if "shampoo_beta" in state:  # SOAP's lists have an item for each of the two axes
        for name in ("GG", "Q"):
            state[name] = [state.pop(f"{name}.{axis}", []) for axis in (0, 1)]


def find_library(name: str) -> Any:
    """The library.

    Args:
        name: of the method that needs it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise ConfigError(
            f"{name} needs the package pytorch-optimizer ({error}); install the extra 'peers': "
            "pip install 'pytorch-optimizer>=4.1'"
        ) from error
    return pytorch_optimizer
