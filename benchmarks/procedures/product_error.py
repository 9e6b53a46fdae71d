"""Removing inner indices of a product in three ways, and what it costs (paper, Appendix A).

The mathematics of experiments/mismatch_error.py. Everything is float64, so that an error of zero is a zero.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

import ecospa
from benchmarks.data.text.packing import training_sequences
from benchmarks.data.text.tokenized import PreparedText, prepare
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.models.language import build_model, silence_transformers
from benchmarks.specs.product_error import MismatchSettings
from results.record import Metric

REMOVALS = ("aligned", "misaligned", "random")
_HEADLINE_SHARE = 0.5
_RANK_SHARE = 4  # low_rank matrices have a quarter of the full rank
_NOISE = 0.05

Product = tuple[Tensor, Tensor]


def kept_indices(left: Tensor, right: Tensor, removed: int, removal: str, generator: torch.Generator) -> Tensor:
    """Return the inner indices that still contribute after a removal.

    Args:
        left: (rows, inner).
        right: (inner, columns).
        removed: indices taken from each matrix.
        removal: "aligned", "misaligned" or "random".
        generator: for "random".

    Returns:
        bool (inner,). For "misaligned" an index counts only where both matrices keep it.

    Raises:
        ValueError: another removal.
    """
    inner = left.shape[1]
    if removal == "aligned":
        return _without_smallest(ecospa.importance.index_scores(left, right), removed)
    if removal == "misaligned":
        return _without_smallest(left.norm(dim=0), removed) & _without_smallest(right.norm(dim=1), removed)
    if removal == "random":
        kept = torch.ones(inner, dtype=torch.bool)
        kept[torch.randperm(inner, generator=generator)[:removed]] = False
        return kept
    raise ValueError(f"removal is {removal!r}; choose from {', '.join(REMOVALS)}")


def relative_error(left: Tensor, right: Tensor, kept: Tensor) -> float:
    """||W1 W2 - W1[:, kept] W2[kept, :]||_F / ||W1 W2||_F.

    Args:
        left: (rows, inner).
        right: (inner, columns).
        kept: bool (inner,).
    """
    lost = left[:, ~kept] @ right[~kept]
    return float(lost.norm() / (left @ right).norm())


def execute(run: Run, context: RunContext) -> RunResult:
    """All curves of one record: three removals for four kinds of matrices.

    Raises:
        MissingSourceError: the text for the trained matrices is not at hand.
    """
    settings: MismatchSettings = run.cell.settings
    torch.set_num_threads(context.threads)
    silence_transformers()
    text = prepare(settings.data, settings.protocol, run.cell.tier, context.folder)
    model = _trained_model(settings, text, run.seed, context.progress)
    generator = torch.Generator().manual_seed(run.seed)
    kinds: dict[str, Callable[[], list[Product]]] = {
        "random": lambda: _drawn(_random, settings, generator),
        "scaled": lambda: _drawn(_scaled, settings, generator),
        "low_rank": lambda: _drawn(_low_rank, settings, generator),
        "trained": lambda: list(pair_products(model)),
    }
    curves, metrics = [], {}
    for kind, make in kinds.items():
        products = make()
        for removal in REMOVALS:
            errors = [_errors(product, settings.shares, removal, generator) for product in products]
            columns = list(zip(*errors, strict=True))
            mean = [statistics.fmean(column) for column in columns]
            curves.append(
                {
                    "matrix": kind,
                    "removal": removal,
                    "removed_share": list(settings.shares),
                    "relative_error": mean,
                    "standard_error": [_standard_error(column) for column in columns],
                    "n": len(products),
                }
            )
            headline = mean[settings.shares.index(_HEADLINE_SHARE)]
            metrics[f"relative_error_{kind}_{removal}"] = Metric(headline, "", False, n=len(products))
    return RunResult(metrics=metrics, data_fingerprint=text.fingerprint, payload={"curves": curves})


def pair_products(model: nn.Module) -> Iterator[Product]:
    """The two matrices of every pair and group of a model whose matrices multiply directly (no gate, no rotation).

    Yields:
        (rows, width) and (width, columns), float64: W_Q^T and W_K, W_V and W_O, W_in and W_out.
    """
    parameters = dict(model.named_parameters())
    for pair in ecospa.coupled_pairs(model):
        for group in range(pair.groups):
            left, right = (_side(parameters, axes, group) for axes in (pair.left, pair.right))
            yield left, right.T


def _side(parameters: dict[str, nn.Parameter], axes: Sequence[ecospa.WeightAxis], group: int) -> Tensor:
    """(rows, width) of all matrices of one side; its biases are not part of the product."""
    matrices = [axis for axis in axes if parameters[axis.parameter].ndim == 2]
    return torch.cat([_rows(parameters[axis.parameter], axis, group) for axis in matrices])


def _rows(parameter: nn.Parameter, axis: ecospa.WeightAxis, group: int) -> Tensor:
    """(other positions * repeats, width) of one matrix for one group."""
    matrix = parameter.detach().double().movedim(axis.axis, 1)
    repeats = axis.index.shape[2]
    return torch.cat([matrix[:, axis.index[group, :, copy]] for copy in range(repeats)])


def _trained_model(
    settings: MismatchSettings, text: PreparedText, seed: int, progress: Callable[[int, int], None]
) -> nn.Module:
    """A GPT-2 trained for a short while in a plain loop: only its weights matter here."""
    model = build_model(settings.model, seed, text.end_of_text)
    training = settings.training
    sequences = torch.from_numpy(training_sequences(text.train, settings.protocol.sequence_length))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    model.train()
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * _warm_up_and_cosine(step, training.warmup_steps, training.steps)
        batch = sequences[torch.randint(len(sequences), (training.batch_size,), generator=generator)]
        model(input_ids=batch, labels=batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        progress(step + 1, training.steps)
    return model


def _warm_up_and_cosine(step: int, warm_up: int, steps: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def _errors(product: Product, shares: Sequence[float], removal: str, generator: torch.Generator) -> list[float]:
    left, right = product
    counts = [round(share * left.shape[1]) for share in shares]
    return [relative_error(left, right, kept_indices(left, right, count, removal, generator)) for count in counts]


def _without_smallest(values: Tensor, removed: int) -> Tensor:
    kept = torch.ones(len(values), dtype=torch.bool)
    kept[values.argsort(stable=True)[:removed]] = False
    return kept


def _drawn(
    draw: Callable[[MismatchSettings, torch.Generator], Product], settings: MismatchSettings, generator: torch.Generator
) -> list[Product]:
    return [draw(settings, generator) for _ in range(settings.draws)]


def _random(settings: MismatchSettings, generator: torch.Generator) -> Product:
    left = torch.randn(settings.rows, settings.inner, generator=generator, dtype=torch.float64)
    right = torch.randn(settings.inner, settings.columns, generator=generator, dtype=torch.float64)
    return left, right


def _scaled(settings: MismatchSettings, generator: torch.Generator) -> Product:
    left, right = _random(settings, generator)
    scales = torch.randn(2, settings.inner, generator=generator, dtype=torch.float64).exp()
    return left * scales[0], right * scales[1][:, None]


def _low_rank(settings: MismatchSettings, generator: torch.Generator) -> Product:
    rank = max(1, settings.inner // _RANK_SHARE)

    def factor(rows: int, columns: int) -> Tensor:
        outer = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
        inner = torch.randn(rank, columns, generator=generator, dtype=torch.float64)
        noise = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        return outer @ inner / math.sqrt(rank) + _NOISE * noise

    return factor(settings.rows, settings.inner), factor(settings.inner, settings.columns)


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
