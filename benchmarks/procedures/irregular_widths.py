"""Times training steps of one model cut to one size at regular and at irregular widths, interleaved.

Also whether the library tells that irregular widths bring no speed-up: for experiments/failure_signatures.py.
"""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

import ecospa
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.models import synthetic
from benchmarks.models.language import silence_transformers
from benchmarks.specs.failure_signatures import WidthSettings
from benchmarks.timing.candidates import DTYPES
from benchmarks.timing.interleaved import interleave, ratio
from benchmarks.timing.training_step import stepper
from ecospa.accounting import parameters, training_flops
from ecospa.pairs import unit_positions
from results.record import Metric

_WARM_UP = 3
_TOP_K = 0.3  # so that every layer ends at widths of its own, as in training
_ODD = "one index less"


def execute(run: Run, context: RunContext) -> RunResult:
    """Cut copies of a model of random weights, time them in every precision, and check their widths."""
    settings: WidthSettings = run.cell.settings
    torch.set_num_threads(context.threads)
    silence_transformers()
    torch.manual_seed(run.seed)
    dense = synthetic.build(settings.model)
    models = {"dense": dense, **_cut_models(dense, settings, run.seed)}
    generator = torch.Generator().manual_seed(run.seed)
    batches = [
        synthetic.random_batch(settings.model, settings.batch, settings.model.length, generator)
        for _ in range(_WARM_UP + settings.turns)
    ]
    rows: list[dict[str, Any]] = []
    for number, precision in enumerate(settings.precisions, start=1):
        cast = {name: copy.deepcopy(model).to(DTYPES[precision]) for name, model in models.items()}
        steps = [stepper(model, batches).work for model in cast.values()]
        seconds = dict(zip(cast, interleave(steps, settings.turns, _WARM_UP, "cpu"), strict=True))
        rows += [
            {"precision": precision, "name": name, **_row(model, dense, settings, seconds[name], seconds["dense"])}
            for name, model in cast.items()
        ]
        context.progress(number, len(settings.precisions))
    regular = next(row for row in rows if row["name"] == _rounded(max(settings.multiples)))
    metrics = {
        "step_time_ratio": Metric(regular["step_time_ratio"], "shrunk / dense", False, n=settings.turns),
        "step_flops_ratio": Metric(regular["step_flops_ratio"], "shrunk / dense", False),
    }
    return RunResult(metrics, "0" * 64, payload={"widths": rows})


def _rounded(multiple: int) -> str:
    return f"multiples of {multiple}"


def _cut_models(dense: nn.Module, settings: WidthSettings, seed: int) -> dict[str, nn.Module]:
    """Copies of one size by EcoSpa's plan at random importances, and one with an index less than the most regular."""
    generator = torch.Generator().manual_seed(seed)
    pairs = ecospa.coupled_pairs(dense)
    drawn = torch.rand(len(pairs), generator=generator).tolist()
    importances = {pair.name: value for pair, value in zip(pairs, drawn, strict=True)}
    made: dict[str, nn.Module] = {}
    for multiple in sorted(settings.multiples, reverse=True):
        model = copy.deepcopy(dense)
        plan = ecospa.plan_shrink(
            model,
            settings.target,
            target_scope="blocks",
            width_multiple=multiple,
            top_k=_TOP_K,
            importances=importances,
        )
        ecospa.apply_plan(model, plan)
        made[_rounded(multiple)] = model
        if _ODD not in made:
            made[_ODD] = _one_less(copy.deepcopy(model))
    return made


def _one_less(model: nn.Module) -> nn.Module:
    kept = {
        pair.name: unit_positions(pair, torch.arange(pair.units - 1).expand(pair.groups, -1))
        for pair in ecospa.coupled_pairs(model)
    }
    ecospa.apply_plan(model, ecospa.SparsityPlan.build(model, kept))
    return model


def _row(
    model: nn.Module, dense: nn.Module, settings: WidthSettings, seconds: Sequence[float], reference: Sequence[float]
) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ecospa.FailureSignatureWarning)  # the record holds it
        found = ecospa.check_widths(model)
    flops = [training_flops(one, settings.batch, settings.model.length) for one in (model, dense)]
    return {
        "block_share": parameters(model, "blocks") / parameters(dense, "blocks"),
        "step_seconds": statistics.median(seconds),
        "step_time_ratio": ratio(seconds, reference),
        "step_flops_ratio": flops[0] / flops[1],
        "irregular_pairs": len(found.irregular),
        "pairs": len(ecospa.coupled_pairs(model)),
        "rounded_time_ratio": found.time_ratio,
        "no_speedup": found.no_speedup,
    }
