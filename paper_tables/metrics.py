"""Metrics as tables show them: header and kind of number. Unit and direction stand in the record, with every value.

A metric that is not known here needs no line: a table of runs that have it shows it behind its own columns, under its
name, its unit and which way is better, as the record says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from results import RunRecord


@dataclass(frozen=True)
class Metric:
    """Display of a metric: `kind` as in `analysis.formats.quantity` (plain, count, percent, ...)."""

    header: str
    kind: str = "plain"


Column = str | tuple[str, str]
"""A metric; or a metric and the header that it has in one table."""

METRICS = {
    # quality
    "perplexity": Metric("Perplexity"),
    "word_perplexity": Metric("Word perplexity"),
    "bits_per_byte": Metric("Bits/byte"),
    "eval_loss": Metric("Loss"),
    "top1": Metric("Top-1", "percent"),
    "top5": Metric("Top-5", "percent"),
    "exact_match": Metric("Exact match"),
    "f1": Metric("F1"),
    # size
    "parameters": Metric("Stored parameters", "count"),
    "parameters_nonzero": Metric("Non-zero parameters", "count"),
    "block_parameters": Metric("Stored in blocks", "count"),
    "block_parameters_nonzero": Metric("Non-zero in blocks", "count"),
    "block_parameters_effective": Metric("Effective in blocks", "count"),
    "average_parameters": Metric("Average parameters", "count"),
    "average_block_parameters": Metric("Average in blocks", "count"),
    "shrink_events": Metric("Shrink events"),
    # length of training
    "tokens_per_parameter": Metric("Tokens/parameter"),
    "training_steps": Metric("Training steps"),
    # FLOPs
    "step_flops": Metric("Step FLOPs", "count"),
    "step_flops_ratio": Metric("FLOPs / dense"),
    "forward_flops_ratio": Metric("Forward FLOPs / dense"),
    "run_flops": Metric("Run FLOPs", "count"),
    "probe_flops": Metric("Probe FLOPs", "count"),
    # time and energy
    "compile_seconds": Metric("Compiling (s)"),
    "compression_time": Metric("Compression time", "milliseconds"),
    "dense_latency": Metric("Dense latency", "milliseconds"),
    "dense_mode_latency_ratio": Metric("Mode / plain, dense"),
    "dense_mode_step_time_ratio": Metric("Mode / plain, dense"),
    "dense_plain_latency": Metric("Dense latency, plain", "milliseconds"),
    "dense_step_time": Metric("Dense step", "milliseconds"),
    "energy_ratio": Metric("Energy / dense"),
    "estimator_share": Metric("Estimator / step", "percent"),
    "event_steps": Metric("Event in steps"),
    "final_step_time_ratio": Metric("Final step / dense"),
    "latency": Metric("Latency", "milliseconds"),
    "latency_over_flops": Metric("Time / FLOPs"),
    "latency_ratio": Metric("Latency / dense"),
    "mode_latency_ratio": Metric("Mode / plain"),
    "model_flops_utilisation": Metric("FLOP utilisation", "percent"),
    "mode_step_time_ratio": Metric("Mode / plain"),
    "plain_latency": Metric("Latency, plain", "milliseconds"),
    "recompile_seconds": Metric("Compiling after a cut (s)"),
    "step_time": Metric("Step time", "milliseconds"),
    "step_time_over_flops": Metric("Time / FLOPs"),
    "step_time_ratio": Metric("Time / dense"),
    "swapped_latency_ratio": Metric("Other classes alone / dense"),
    "swapped_step_time_ratio": Metric("Other classes alone / dense"),
    "throughput": Metric("Tokens/s", "count"),
    "throughput_ratio": Metric("Speed-up over dense"),
    "time_to_plan_and_apply": Metric("Time / EcoSpa plan and apply"),
    # bytes
    "cache_bytes_ratio": Metric("Keys and values / dense"),
    "dense_peak_memory": Metric("Dense peak", "megabytes"),
    "gradients_bytes": Metric("Gradients", "megabytes"),
    "mean_memory_ratio": Metric("Average / dense"),
    "memory_on_top": Metric("Memory on top of the model", "megabytes"),
    "optimizer_bytes": Metric("Optimizer", "megabytes"),
    "peak_memory": Metric("Peak memory", "megabytes"),
    "peak_memory_ratio": Metric("Peak / dense"),
    "steady_memory_ratio": Metric("At the end / dense"),
    "training_bytes": Metric("Training holds, end", "megabytes"),
    "training_bytes_peak": Metric("Training holds, peak", "megabytes"),
    "weights_bytes": Metric("Weights", "megabytes"),
}
_KINDS = {"s": "milliseconds", "bytes": "megabytes", "parameters": "count", "floating-point operations": "count"}
"""Units of records that have a kind of their own."""
_DIRECTIONS = {True: "higher is better", False: "lower is better"}
_ELSEWHERE = re.compile(
    r"(?:dense_)?energy|"
    r"accuracy|score|majority_score|matthews|pearson|spearman|first_words_\w+|(?:acc|acc_norm|exact_match)[\w-]*/\w+"
    r"|chance/\w+|perplexity_\w+|relative_error_\w+|break_point_\w+|block_share|parameters_effective|forward_flops"
    r"|foretold_\w+|plain_\w+_over_flops|dense_throughput|dense_compile_seconds|training_seconds|heads_time(?:_ratio)?"
    r"|data_seconds|(?:training|device)_flops_rate|peer_heads_time|plan_and_apply_time|mean_memory|steady_memory|memory_limit|tried|works"
)
"""Metrics shown in other ways than a column of its own: per task, per part, compared with something, as a ratio."""


def headers(columns: Iterable[Column]) -> dict[str, str]:
    """Return metric -> header, in the order of the columns."""
    pairs = [(column, METRICS[column].header) if isinstance(column, str) else column for column in columns]
    return dict(pairs)


def kind(name: str, records: Sequence[RunRecord]) -> str:
    """Return the kind of number that a metric is: as METRICS says, else by the unit that the records give it."""
    if name in METRICS:
        return METRICS[name].kind
    units = [record.metrics[name].unit for record in records if name in record.metrics]
    return _KINDS.get(units[0], "plain") if units else "plain"


def is_known(name: str) -> bool:
    """Return whether tables already say where a metric stands."""
    return name in METRICS or _ELSEWHERE.fullmatch(name) is not None


def unknown(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return metric -> header of what the records hold and no table knows, by name."""
    found = {name: metric for record in records for name, metric in record.metrics.items() if not is_known(name)}
    made = {}
    for name in sorted(found):
        unit, better = found[name].unit, found[name].higher_is_better
        shown = unit if unit not in _KINDS else ""  # the number has it
        remarks = [text for text in (shown, "" if better is None else _DIRECTIONS[better]) if text]
        made[name] = name.replace("_", " ") + (f" ({', '.join(remarks)})" if remarks else "")
    return made
