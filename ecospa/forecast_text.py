"""A forecast for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict

from ecospa.config import EcoSpaConfig
from ecospa.forecast import Forecast, Stage, Workload
from ecospa.forecast_time import StepTimes
from ecospa.width_rule import WidthRule

_ROWS = 8
_HEADERS = ("from step", "parameters", "in blocks", "weights", "gradients", "optimizer", "together", "step FLOPs")


def as_json(
    name: str, config: EcoSpaConfig, workload: Workload, found: Forecast, times: StepTimes | None = None
) -> str:
    """Everything, as JSON."""
    content = {
        "model": name,
        "config": asdict(config),
        "workload": asdict(workload),
        "target_parameters": found.target,
        "landed": found.landed,
        "run_flops": found.run_flops,
        "run_flops_ratio": found.flops_ratio,
        "mean_bytes_ratio": found.mean_bytes_ratio,
        "stages": [asdict(stage) for stage in found.stages],
        "step_times": None if times is None else asdict(times),
    }
    return json.dumps(content, indent=2)


def as_markdown(
    name: str, config: EcoSpaConfig, workload: Workload, found: Forecast, times: StepTimes | None = None
) -> str:
    """Render first what a reader wants to know, then stages and widths."""
    whose = "the dense model's" if config.relative_to == "dense" else "its"
    parts = [
        f"# {name} to {config.target_size:.0%} of {whose} {config.target_scope}",
        "\n".join(f"- {line}" for line in _summary(config, workload, found, times)),
        "## Over the run",
        _table(_HEADERS, [_stage_row(stage) for stage in _shown(found.stages)]),
        "Bytes are those of weights, gradients and optimizer state; activations come on top. Training starts dense, so "
        "the peak is the dense model's.",
        "## Widths",
        _table(("kind", "pairs", "before", "least", "median", "most"), _width_rows(found)),
        "Widths are an even spread: which layers lose how much is decided by gradients during the run.",
    ]
    return "\n\n".join(parts)


def _summary(config: EcoSpaConfig, workload: Workload, found: Forecast, times: StepTimes | None) -> list[str]:
    first, last = found.stages[0], found.stages[-1]
    lines = [
        f"parameters: {count(first.parameters)} before, {count(last.parameters)} after "
        f"({last.parameters / first.parameters:.1%}; blocks {last.block_parameters / first.block_parameters:.1%})",
        f"weights, gradients and {workload.optimizer} state ({workload.precision}): {size(first.bytes)} at the peak, "
        f"{size(last.bytes)} at the end ({last.bytes / first.bytes:.1%}), {found.mean_bytes_ratio:.1%} on average",
        f"compute of {workload.steps} steps of {workload.batch} x {workload.sequence} tokens: "
        f"{found.run_flops:.3e} FLOPs, {1 - found.flops_ratio:.1%} less than dense; "
        f"a step at the end needs {last.step_flops / first.step_flops:.1%} of a dense one",
        f"{len(found.stages) - 1} events, the last at step {last.step}: {_pace(config)}",
    ]
    if isinstance(config.width_multiple, WidthRule):
        rule = config.width_multiple
        tied = ", which stay equal" if rule.tied else ""
        lines.append(
            f"widths: heads multiples of {rule.qk} and {rule.vo}{tied}, feed-forward of {rule.ffn} ({rule.reason})"
        )
    if not found.landed:
        lines.append("THE TARGET IS NOT REACHED in these steps: give more, a smaller interval, or an end_step")
    if times is not None:
        lines += [
            f"a step on {times.device}: {times.dense:.3g} s dense, {times.final:.3g} s at the end "
            f"({times.final / times.dense:.1%}); the whole run takes {times.run_ratio:.1%} of a dense one",
            f"activations of a pass over {workload.at_once}: {size(times.dense_activations)} dense, "
            f"{size(times.final_activations)} at the end",
        ]
    return lines


def _pace(config: EcoSpaConfig) -> str:
    if config.pace == "curve":
        return f"a {config.curve} curve from step {config.start_step} to {config.end_step}, K and theta decide where"
    every = f"every {config.interval} steps" if config.interval else f"spaced to end at step {config.end_step}"
    rate = config.top_k * (1 - config.importance_threshold)
    return f"{every}, K x (1 - theta) = {rate:.1%} of the pairs' width each"


def _shown(stages: tuple[Stage, ...]) -> list[Stage]:
    """A few stages, evenly far apart, the first and the last among them."""
    if len(stages) <= _ROWS:
        return list(stages)
    last = len(stages) - 1
    return [stages[round(number * last / (_ROWS - 1))] for number in range(_ROWS)]


def _stage_row(stage: Stage) -> tuple[str, ...]:
    sizes = (stage.weights, stage.gradients, stage.optimizer, stage.bytes)
    numbers = (count(stage.parameters), count(stage.block_parameters), *(size(value) for value in sizes))
    return (str(stage.step), *numbers, f"{stage.step_flops:.3e}")


def _width_rows(found: Forecast) -> list[tuple[str, ...]]:
    """One row per kind of pair and width before."""
    after = found.stages[-1].widths
    together: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for name, width in found.stages[0].widths.items():
        together[name.rpartition(".")[2], width].append(after[name])
    return [
        (kind, str(len(left)), str(width), str(min(left)), str(statistics.median_low(left)), str(max(left)))
        for (kind, width), left in sorted(together.items())
    ]


def _table(headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in (headers, *rows)) for column in range(len(headers))]

    def line(row: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(headers), rule, *map(line, rows)])


def count(number: float) -> str:
    """1234567 -> "1.235 M"."""
    return _scaled(number, {1e9: "G", 1e6: "M", 1e3: "k"}, "")


def size(number: float) -> str:
    """Bytes, decimal: 1234567 -> "1.235 MB"."""
    return _scaled(number, {1e12: "TB", 1e9: "GB", 1e6: "MB", 1e3: "kB"}, "B")


def _scaled(number: float, units: Mapping[float, str], rest: str) -> str:
    for factor, unit in units.items():
        if number >= factor:
            return f"{number / factor:.4g} {unit}"
    return f"{number:.4g} {rest}".strip()
