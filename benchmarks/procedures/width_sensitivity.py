"""Cuts one part of a trained model to ever smaller widths, with and without recovery: experiments/sparsity_limits.py.

Every width starts from the dense model again, so a curve says what one cut does and nothing about a sequence of cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import ecospa
from benchmarks.data.text.packing import evaluation_windows, training_sequences
from benchmarks.data.text.tokenized import prepare
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.metrics.perplexity import perplexity_metrics, predict
from benchmarks.models.language import silence_transformers
from benchmarks.specs.training import TrainingSpec
from benchmarks.specs.width_sensitivity import DEPTHS, KINDS, LimitsSettings
from benchmarks.tasks.trained_language_model import trained_place
from ecospa import CoupledPair, SparsityPlan, coupled_pairs
from ecospa.accounting import parameters
from ecospa.families import transformer_blocks
from ecospa.pairs import unit_positions
from ecospa.selection import best_units
from ecospa.sparsifier import pair_scores
from results.record import Metric


def execute(run: Run, context: RunContext) -> RunResult:
    """The curve of one part, and where it breaks.

    Raises:
        MissingSourceError: the text is not at hand.
    """
    settings: LimitsSettings = run.cell.settings
    torch.set_num_threads(context.threads)
    silence_transformers()
    place = trained_place(settings, run.cell.tier, context, run.seed)
    text = prepare(settings.data, settings.protocol, run.cell.tier, context.folder)
    windows = evaluation_windows(text.evaluation, settings.protocol.sequence_length, settings.protocol.stride)
    sequences = torch.from_numpy(training_sequences(text.train, settings.protocol.sequence_length))
    device, size = settings.training.device, 2 * settings.training.micro_batch_size

    def build() -> nn.Module:
        return ecospa.from_pretrained(place).to(torch.device(device))

    def perplexity(model: nn.Module) -> float:
        prediction = predict(model, *windows, batch_size=size, device=device)
        return perplexity_metrics(prediction, text.words, text.size)["perplexity"].value

    widths = (1.0, *settings.widths)
    rows = []
    for number, share in enumerate(widths):
        context.progress(number, len(widths))
        rows.append(
            _measured(
                build(), settings, share, perplexity, lambda m: recover(m, sequences, settings.training, run.seed)
            )
        )
    context.progress(len(widths), len(widths))
    return RunResult(
        metrics=_metrics(rows, settings.margin),
        data_fingerprint=text.fingerprint,
        payload={"curve": rows, "margin": settings.margin},
        device=device,
    )


def part_of(pairs: Sequence[CoupledPair], part: str, blocks: Sequence[str]) -> list[CoupledPair]:
    """The pairs of one part.

    Args:
        pairs: of the dense model.
        part: a kind, "qk", "vo" or "ffn", or a third of the blocks, "early", "middle" or "late".
        blocks: names of the blocks, in order; where they do not divide by three, the earlier thirds are larger.

    Raises:
        ValueError: another part.
    """
    if part in KINDS:
        return [pair for pair in pairs if pair.kind.value == part]
    if part not in DEPTHS:
        raise ValueError(f"part is {part!r}; choose one of {', '.join((*KINDS, *DEPTHS))}")
    third = {name: 3 * number // len(blocks) for number, name in enumerate(blocks)}
    return [pair for pair in pairs if third[pair.block] == DEPTHS.index(part)]


def narrowing_plan(model: nn.Module, part: str, share: float) -> SparsityPlan:
    """The plan that leaves every pair of a part the same share of its width, by EcoSpa's index scores.

    Args:
        model: the dense model.
        part: as for `part_of`.
        share: of the width, in (0, 1]; at least one unit of every pair stays.
    """
    kept = {}
    for pair in part_of(coupled_pairs(model), part, list(transformer_blocks(model))):
        units = max(1, round(share * pair.units))
        kept[pair.name] = unit_positions(pair, best_units(pair_scores(model, pair), units))
    return SparsityPlan.build(model, kept)


def break_point(widths: Sequence[float], perplexities: Sequence[float], limit: float) -> float | None:
    """The width at which perplexity passes a limit, from wide to narrow, by straight lines between measured widths.

    Args:
        widths: shares of the width, falling.
        perplexities: at these widths.
        limit: perplexity that counts as broken.

    Returns:
        The width of the first crossing; None where the limit is never passed, and the first width where it is passed
        from the start.
    """
    points = list(zip(widths, perplexities, strict=True))
    if points[0][1] > limit:
        return points[0][0]
    for (wide, below), (narrow, above) in pairwise(points):
        if above > limit:
            return wide - (wide - narrow) * (limit - below) / (above - below)
    return None


def recover(model: nn.Module, sequences: Tensor, training: TrainingSpec, seed: int) -> None:
    """A short training with AdamW at a constant rate after the warm-up; the same text for the same seed.

    Args:
        model: trained in place.
        sequences: int64 (sequences, length).
        training: steps, batch size, rates.
        seed: decides the order.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    model.train()
    for step in range(1, training.steps + 1):
        optimizer.param_groups[0]["lr"] = training.learning_rate * min(1.0, step / max(1, training.warmup_steps))
        chosen = torch.randint(len(sequences), (training.batch_size,), generator=generator)
        batch = sequences[chosen].to(torch.device(training.device))
        model(input_ids=batch, labels=batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()


def _measured(
    model: nn.Module,
    settings: LimitsSettings,
    share: float,
    perplexity: Callable[[nn.Module], float],
    train: Callable[[nn.Module], None],
) -> dict[str, Any]:
    """One point of the curve: the dense model, cut, measured, trained, measured."""
    whole = parameters(model, "blocks")
    if share < 1:
        ecospa.apply_plan(model, narrowing_plan(model, settings.part, share))
    row = {"width": share, "block_share": parameters(model, "blocks") / whole, "perplexity_cut": perplexity(model)}
    train(model)
    return {**row, "perplexity_recovered": perplexity(model)}


def _metrics(rows: Sequence[dict[str, Any]], margin: float) -> dict[str, Metric]:
    """Perplexities of the dense model, and both break points where there are some."""
    metrics = {}
    for when, name in (("cut", "perplexity_dense"), ("recovered", "perplexity_dense_recovered")):
        scores = [row[f"perplexity_{when}"] for row in rows]
        metrics[name] = Metric(scores[0], "per token", False)
        point = break_point([row["width"] for row in rows], scores, (1 + margin) * scores[0])
        if point is not None:
            metrics[f"break_point_{when}"] = Metric(point, "of the width", False)
    return metrics
