"""Low rank: every projection of the blocks is a product of two thin matrices, from the first step on.

Source: Kamalakara et al. (arXiv 2209.13569); the "Low-Rank" rows of GaLore's tables (arXiv 2403.03507).
Equations: W (out, in) becomes B A, B (out, r), A (r, in), by the r largest singular values of the weight as it was
initialised (or pre-trained): W = U S V^T, B = U_r sqrt(S_r), A = sqrt(S_r) V_r^T. Biases stay.
Faithful: spectral initialisation; the factors are trained directly and stay apart to the end; embeddings, norms and the
head are whole.
Changed: the rank follows from the budget's target: one share of the full rank for all matrices, then single ranks for
those that the rounding cost most, until the size is the smallest not below the target: it lands within one rank of one
matrix. A matrix that would not get smaller (r (out + in) >= out in) stays whole. Without a target the rank is a quarter
of the smaller side, as in GaLore's table.
Simplified: AdamW's decay acts on the factors; the paper's decay of the norm of the product is left out.
Without training this is truncation of the singular values.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from baselines.low_rank_linear import LowRankLinear, factorise, matrix_shapes, replace_module
from baselines.method import TrainingMethod, check_reachable, size_entry
from ecospa.accounting import parameters
from ecospa.checkpoint import CheckpointError

RANK_SHARE = 4
"""Without a target the rank is the smaller side of a matrix divided by this."""


class LowRank(TrainingMethod):
    """Trains the factors of every projection instead of the projection."""

    name: ClassVar[str] = "low_rank"
    title = "low rank"
    removes = "structures"
    group = "structures by activations or weights"
    reads_gradients: ClassVar[bool] = False
    layer: ClassVar[type[LowRankLinear]] = LowRankLinear
    """Class of what takes the place of a projection; a subclass for other layers of two factors sets its own."""

    def prepare(self, model: nn.Module, calibration: Any = None) -> None:
        """Factorise the projections of the model's blocks in place.

        Raises:
            ConfigError: the target cannot be reached with rank 1 everywhere, or a weight is NaN or infinite.
            UnsupportedModelError: no family knows the model's blocks.
        """
        self.accept(model, calibration)
        self.replace(model, self._ranks(model))
        self.history[:] = [size_entry(0, model, widths={})]

    def replace(self, model: nn.Module, ranks: Mapping[str, int]) -> None:
        """Put layers of these ranks in the place of projections, in place.

        Args:
            model: the dense model.
            ranks: dotted name of a projection -> r; others stay whole.
        """
        factorise(model, ranks)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write factors and ranks."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_model(model, str(Path(folder) / "model.safetensors"))
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        ranks = {name: part.rank for name, part in model.named_modules() if isinstance(part, self.layer)}
        (Path(folder) / f"{self.name}.json").write_text(
            json.dumps({"version": 1, "dtype": dtype, "ranks": ranks}) + "\n"
        )

    def load(self, folder: Path, dense: nn.Module) -> nn.Module:
        """Read what `save` wrote into `dense`, whose projections are replaced.

        Raises:
            CheckpointError: a file is damaged or missing, or it belongs to another model.
        """
        path = Path(folder) / f"{self.name}.json"
        ranks, dtype = _read_ranks(path)
        sizes = matrix_shapes(dense)
        for name, rank in ranks.items():
            if name not in sizes or rank > min(sizes[name]):
                raise CheckpointError(
                    f"{path}: {name} of rank {rank} is none of this model; build the one it belongs to"
                )
        dense.to(dtype)
        for name in ranks:
            replace_module(dense, name, self.layer.like(dense.get_submodule(name), ranks[name]))
        try:
            load_model(dense, str(Path(folder) / "model.safetensors"))
        except (RuntimeError, OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder}: its weights cannot be read or do not fit the model ({error})") from error
        return dense.eval()

    def _ranks(self, model: nn.Module) -> dict[str, int]:
        shapes = matrix_shapes(model)
        if self.budget.target_size is None:
            quarter = {name: max(1, min(shape) // RANK_SHARE) for name, shape in shapes.items()}
            return {name: r for name, r in quarter.items() if self._stored(shapes[name], r) < math.prod(shapes[name])}
        full = parameters(model, self.budget.target_scope)
        matrices = sum(math.prod(shape) for shape in shapes.values())
        goal = round(self.budget.target_size * full) - (full - matrices)
        least = sum(self._stored(shape, 1) for shape in shapes.values())
        check_reachable(self.budget.target_size, self.budget.target_scope, full, full - matrices + least)
        return ranks_for(shapes, goal, self._stored)

    def _stored(self, shape: tuple[int, int], rank: int) -> int:
        return stored(shape, rank, self.layer.sparse_share)


def stored(shape: tuple[int, int], rank: int, sparse_share: float = 0.0) -> int:
    """Entries of a matrix at a rank: r (out + in), or out in where it stays whole because that is no less.

    Args:
        shape: (out, in).
        rank: r.
        sparse_share: of the matrix, stored in addition to the factors.
    """
    whole = math.prod(shape)
    return min(rank * sum(shape) + int(sparse_share * whole), whole)


def ranks_for(
    shapes: Mapping[str, tuple[int, int]], goal: int, size: Callable[[tuple[int, int], int], int] = stored
) -> dict[str, int]:
    """The ranks of the smallest total that is not below a goal, the same share of the full rank everywhere.

    r_i = max(1, floor(share min(out_i, in_i))) for the largest share whose total is not above the goal; then one rank
    more, matrix by matrix, first where the floor took most, until the goal is reached

    Args:
        shapes: name -> (out, in).
        goal: entries of all matrices together that are left at least.
        size: (out, in) and r -> entries, all of them where the matrix stays whole.

    Returns:
        name -> r of the matrices that become smaller; the others stay whole.
    """
    sides = {name: min(shape) for name, shape in shapes.items()}
    # the shares at which some floor changes are the only ones that differ
    shares = sorted({(rank / side, rank, side) for side in set(sides.values()) for rank in range(side + 1)})

    def at(entry: tuple[float, int, int]) -> dict[str, int]:
        _, rank, side = entry
        return {name: max(1, rank * smaller // side) for name, smaller in sides.items()}

    def total(ranks: Mapping[str, int]) -> int:
        return sum(size(shape, ranks[name]) for name, shape in shapes.items())

    place = bisect.bisect_right(shares, goal, key=lambda entry: total(at(entry))) - 1
    share, ranks = shares[max(place, 0)], at(shares[max(place, 0)])
    shortfall = {name: share[0] * side - ranks[name] for name, side in sides.items()}
    for name in sorted(sides, key=lambda name: -shortfall[name]):
        if total(ranks) >= goal:
            break
        ranks[name] = min(ranks[name] + 1, sides[name])
    return {name: rank for name, rank in ranks.items() if size(shapes[name], rank) < math.prod(shapes[name])}


def _read_ranks(path: Path) -> tuple[dict[str, int], torch.dtype]:
    try:
        content = json.loads(path.read_text())
        ranks, dtype = content["ranks"], getattr(torch, content["dtype"])
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; copy the whole folder") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); it must hold ranks and a dtype") from error
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(f"{path} is damaged; dtype is {content['dtype']!r} and must be one of torch")
    if not isinstance(ranks, dict) or not all(type(rank) is int and rank > 0 for rank in ranks.values()):
        raise CheckpointError(f"{path} is damaged; ranks must map names to whole numbers of at least 1")
    return ranks, dtype
