"""SliceGPT: the residual stream loses its directions of least energy, and every matrix that touches it gets narrower.

Source: Ashkboos et al. (arXiv 2401.15024), sections 3.2 to 3.4; authors' code (TransformerCompression) for the order.
Equations: of the signal X_l behind the l-th norm the covariance C_l = sum X_l^T X_l = Q_l diag(lambda) Q_l^T with
lambda descending; the stream stands in the first n columns of Q_l there. Embeddings become E Q_1, what reads the stream
W Q_l, what writes it Q_{l+1}^T W, and the residual path past a branch gets the shortcut Q_l^T Q_{l+1}, (n, n).
Faithful: LayerNorm models become RMS norm models exactly; a basis of its own before every attention, every MLP and the
head; bases from the signals that the already sliced parts give; one width n everywhere; norms keep the denominator d;
shortcuts are parameters and count; embeddings and head are sliced too, tied ones are untied.
Changed: n is the smallest whose size is not below the target, any whole number ("lands within one width step", about
1/d of the blocks); the paper names the share of n that goes. Because of the shortcuts and of an untied head a model is
LARGER than before unless n is well below d: at target 1.0 the full width stays, exact and larger. Padding is left out.
Deviation: the signal behind the norm is what the paper's text says; the authors' code takes the one before it. Their
damping of C_l is left out, it moves no eigenvector. Dropout acts on rotated coordinates.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from baselines.block_walk import BlockInputs, walk_blocks
from baselines.calibration import Calibration
from baselines.curve import shapes_only
from baselines.method import Budget, TrainingMethod, architecture
from baselines.posttraining import PostTraining
from baselines.residual_rotation import (
    convert,
    ends,
    enter,
    is_rotated,
    leave,
    restructure,
    rotate_embeddings,
    rotate_head,
)
from baselines.rotated_block import HALVES
from ecospa.accounting import parameters
from ecospa.checkpoint import CheckpointError
from ecospa.config import TargetScope

SHAPE = "slicegpt.json"


class SliceGPT(TrainingMethod):
    """One-shot slicing of the residual stream by the principal components of its signals."""

    name: ClassVar[str] = "slicegpt"
    title = "SliceGPT"
    removes = "structures"
    group = "structures by activations or weights"
    stage: ClassVar = "one-shot"
    architectures: ClassVar[frozenset[str]] = frozenset({"gpt2", "llama"})
    needs_calibration: ClassVar[bool] = True
    granularity: ClassVar[str] = "width"

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, PostTraining(budget, self._compress, reachable=self._removable))

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write a sliced model as its weights and its width; before it is sliced, as any other model."""
        if not is_rotated(model):
            super().save(model, folder)
            (Path(folder) / SHAPE).unlink(missing_ok=True)
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        weight: Tensor = model.get_output_embeddings().weight  # type: ignore[operator]
        save_model(model, str(Path(folder) / "model.safetensors"))
        content = {"version": 1, "width": weight.shape[1], "dtype": str(weight.dtype).removeprefix("torch.")}
        (Path(folder) / SHAPE).write_text(json.dumps(content) + "\n")

    def load(self, folder: Path, dense: nn.Module) -> nn.Module:
        """Read what `save` wrote; a sliced model becomes `dense`, which gets its shapes and weights.

        Raises:
            CheckpointError: the file with the width is damaged, or the weights are those of another model.
        """
        shape = Path(folder) / SHAPE
        if not shape.exists():
            return super().load(folder, dense)
        width, dtype = _read_shape(shape)
        family = architecture(dense)
        if width > (full := ends(dense, family).head.weight.shape[1]):
            raise CheckpointError(f"{shape}: width is {width}, the model has {full}; build the model that was sliced")
        restructure(dense.to(dtype), family, width)
        try:
            load_model(dense, str(Path(folder) / "model.safetensors"))
        except (RuntimeError, FileNotFoundError) as error:
            raise CheckpointError(f"{folder}: its weights do not fit the model ({error})") from error
        return dense.eval()

    def _compress(self, model: nn.Module, excess: int) -> None:
        assert self.calibration is not None  # needs_calibration
        scope = self.budget.target_scope
        width = full_width(model)
        if excess:
            width = width_for(model, parameters(model, scope) - excess, scope)
        slice_residual(model, self.calibration, width)

    def _removable(self, model: nn.Module) -> int:
        scope = self.budget.target_scope
        return max(0, parameters(model, scope) - sliced_size(model, 1, scope))


def full_width(model: nn.Module) -> int:
    """Width d of the residual stream of a whole language model."""
    return ends(model, architecture(model)).head.weight.shape[1]


def sliced_size(model: nn.Module, width: int, scope: TargetScope) -> int:
    """Parameters in a scope once a model's stream is `width` wide, shortcuts and untied head counted.

    Args:
        model: a whole model, which is left alone.
        width: n, in [1, d].
        scope: "blocks" or "parameters".
    """
    body = shapes_only(model)
    restructure(body, architecture(body), width)
    return parameters(body, scope)


def width_for(model: nn.Module, goal: int, scope: TargetScope) -> int:
    """The smallest width whose size in a scope is not below a goal; d where none reaches it.

    Args:
        model: a whole model, which is left alone.
        goal: parameters in the scope.
        scope: "blocks" or "parameters".

    Returns:
        n, in [1, d].
    """
    widths = range(1, full_width(model) + 1)
    return widths[min(bisect.bisect_left(widths, goal, key=lambda n: sliced_size(model, n, scope)), len(widths) - 1)]


def slice_residual(model: nn.Module, calibration: Calibration, width: int) -> None:
    """Give the residual stream a PCA basis of `width` vectors at every norm, in place, block by block.

    Args:
        model: a whole GPT-2 or LLaMA-like language model.
        calibration: tokens; positions whose "attention_mask" is 0 are left out.
        width: n, in [1, d]; d changes nothing but rounding.

    Source: SliceGPT, sections 3.2 to 3.4.
    """
    family = architecture(model)
    found = convert(model, family)
    with closing(walk_blocks(model, calibration)) as walk:  # type: ignore[type-var]
        start = next(walk)
    masks = [batch.get("attention_mask") for batch in calibration.batches]
    basis = principal_basis(_moment(start.block.get_submodule(HALVES[family][0].norm), start.hidden, masks), width)
    rotate_embeddings(found, basis)
    for step in walk_blocks(model, calibration):
        basis = _slice_block(step, family, masks, basis)
    rotate_head(found, basis)


def _slice_block(step: BlockInputs, family: str, masks: Sequence[Tensor | None], basis: Tensor) -> Tensor:
    """Slice one block whose inputs stand in a basis; returns the basis in which it now gives its outputs."""
    first, second = HALVES[family]
    enter(step.block, first, basis)
    signals: list[Tensor] = []
    step.observe({second.norm: signals.append})
    norm = step.block.get_submodule(second.norm)
    middle = principal_basis(_moment(norm, signals, masks), basis.shape[1])
    leave(step.block, first, middle)
    enter(step.block, second, middle)
    # the next norm is like this one: no gain any more, and one epsilon for the whole model
    after = principal_basis(_moment(norm, step.observe({}), masks), basis.shape[1])
    leave(step.block, second, after)
    return after


def _moment(norm: nn.Module, signals: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
    """C = sum x^T x over the normed positions of all batches that hold tokens, (d, d), float64."""
    total: Tensor | None = None
    for signal, mask in zip(signals, masks, strict=True):
        rows = norm(signal.flatten(0, -2).double())
        if mask is not None and mask.ndim == 2:
            rows = rows[mask.flatten().to(rows.device).bool()]
        total = rows.T @ rows if total is None else total + rows.T @ rows
    assert total is not None  # calibration is never empty
    return total


def principal_basis(moment: Tensor, width: int) -> Tensor:
    """The directions of most energy: of all projections to that many dimensions this one loses least.

    C = Q diag(lambda) Q^T with lambda descending; sum_t |x_t - x_t Q_n Q_n^T|^2 = lambda_(n+1) + ... + lambda_d

    Args:
        moment: C, (d, d), symmetric and finite.
        width: n, in [1, d].

    Returns:
        Q_n, (d, n), float64, orthonormal columns.

    Raises:
        ValueError: the moment is no finite square matrix, or the width is out of range.

    Source: SliceGPT, section 3.3.
    """
    if moment.ndim != 2 or moment.shape[0] != moment.shape[1] or not bool(torch.isfinite(moment).all()):
        raise ValueError(
            f"moment has shape {tuple(moment.shape)}, or a NaN or infinite entry; it must be a finite matrix (d, d), "
            "so look for broken weights or data"
        )
    if not 1 <= width <= len(moment):
        raise ValueError(f"width is {width}; it must lie in [1, {len(moment)}]")
    vectors: Tensor = torch.linalg.eigh(moment.double()).eigenvectors  # eigenvalues ascend
    return vectors.flip(1)[:, :width].contiguous()


def _read_shape(path: Path) -> tuple[int, torch.dtype]:
    try:
        content = json.loads(path.read_text())
        width, dtype = content["width"], getattr(torch, content["dtype"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); it must hold a width and a dtype") from error
    if type(width) is not int or width < 1 or not isinstance(dtype, torch.dtype):
        raise CheckpointError(f"{path} is damaged; width is {width!r} and must be a whole number of at least 1")
    return width, dtype
