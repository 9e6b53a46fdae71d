"""Zero-shot accuracies of a LLaMA that was made smaller, each compared with chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pandas as pd

from paper_tables.analysis.cells import (
    Cell,
    measured,
    protocol_notes,
    provenance,
    without_empty_columns,
)
from paper_tables.analysis.fine_tuning import Protocol, protocols
from paper_tables.analysis.formats import NOTHING, quantity, share
from paper_tables.analysis.intervals import mean_interval
from paper_tables.item import RECORDS, Table
from paper_tables.methods import label
from paper_tables.metrics import Column, headers
from results import RunRecord

TASKS = {
    **{"boolq": "BoolQ", "piqa": "PIQA", "hellaswag": "HellaSwag", "winogrande": "WinoGrande", "arc_easy": "ARC-e"},
    **{"arc_challenge": "ARC-c", "openbookqa": "OBQA"},
}
OTHERS = {"continuation": "continuation"}
GENERATED = (
    ("exact_match-flexible-extract/gsm8k", "GSM8K"),
    ("exact_match-get-answer/bbh_cot_fewshot", "BBH"),
    ("exact_match/bbh_fewshot_boolean_expressions", "BBH booleans"),
    ("exact_match/bbh_fewshot_navigate", "BBH navigate"),
    ("exact_match/bbh_fewshot_object_counting", "BBH counting"),
)
COLUMNS: tuple[Column, ...] = (
    "perplexity",
    *(
        (f"{metric}/{task}", f"{name}{suffix}")
        for task, name in {**TASKS, **OTHERS}.items()
        for metric, suffix in (("acc", ""), ("acc_norm", " norm"))
    ),
    *GENERATED,
)


def build(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one row per model, procedure, method and size, and for every procedure one of what guessing gives."""
    rows = [row for own in protocols(records) for row in _rows(own)]
    return without_empty_columns(pd.DataFrame(rows))


def _rows(own: Protocol) -> list[dict[str, str]]:
    cells = own.comparison.cells
    named = {"Model": own.model, "Procedure": own.procedure}
    made = [named | _row(cell) for cell in cells]
    if made:
        blank = dict.fromkeys(made[0], NOTHING)
        made.append({**blank, **named, "Method": "guessing", **_chances(own), RECORDS: made[0][RECORDS]})
    return made


def _row(cell: Cell) -> dict[str, str]:
    return {
        "Method": label(cell.method),
        "Blocks kept": share(cell.target),
        "Mean of seven": _average(cell),
        **measured(cell, COLUMNS),
        "Largest standard error": _largest_error(cell),
        **provenance(cell),
    }


def _average(cell: Cell) -> str:
    """Return the mean accuracy of the seven tasks, if a record has all of them."""
    names = [f"acc/{task}" for task in TASKS]
    whole = [record.metrics for record in cell.records if all(name in record.metrics for name in names)]
    means = [sum(metrics[name].value for name in names) / len(names) for metrics in whole]
    return quantity(mean_interval(means)) if means else NOTHING


def _largest_error(cell: Cell) -> str:
    """Return the largest standard error of any accuracy, which comes from the number of questions."""
    values = [
        metric.value for record in cell.records for name, metric in record.metrics.items() if "_stderr" in name
    ]  # fmt: skip
    return f"{max(values):.3f}" if values else NOTHING


def _chances(own: Protocol) -> dict[str, str]:
    """Return what guessing gives at every task, the same for acc and acc_norm."""
    found: dict[str, str] = {}
    metrics = own.comparison.records[0].metrics
    for task, name in {**TASKS, **OTHERS}.items():
        if f"chance/{task}" in metrics:
            text = f"{metrics[f'chance/{task}'].value:.3f}"
            found[name] = text
            if f"acc_norm/{task}" in metrics:
                found[f"{name} norm"] = text
    values = [metrics[f"chance/{task}"].value for task in TASKS if f"chance/{task}" in metrics]
    return {"Mean of seven": f"{sum(values) / len(values):.3f}" if len(values) == len(TASKS) else NOTHING, **found}


def notes(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the number of questions, protocol, data and training of every model."""
    return tuple(
        f"{own.model}, {own.procedure}. {note}"
        for own in protocols(records)
        for note in (_questions(own), *protocol_notes(own.records))
        if note
    )


def _questions(own: Protocol) -> str:
    """Return how many questions every task asks; a short text gives few to `continuation`."""
    metrics = own.comparison.records[0].metrics
    asked: defaultdict[int, list[str]] = defaultdict(list)
    for metric, header in headers(COLUMNS).items():
        if metric in metrics and metric.startswith(("acc/", "exact_match")):
            asked[metrics[metric].n].append(header)
    counts = [f"{n} each of {', '.join(headers)}" for n, headers in asked.items()]
    return f"Questions: {'; '.join(counts)}." if counts else ""


ITEM = Table(
    name="llama_zero_shot",
    title="Zero-shot accuracy of a LLaMA made smaller",
    caption="Accuracy (norm: with the length of an answer divided out) by lm-eval, mean over seeds ± half the width of "
    "the 95% interval. That interval holds the seeds of the pruning, not the choice of questions; the standard error "
    "does that. Beside every model stands what guessing gives: what is within two standard errors of it is chance. "
    "continuation is this project's own task, made from held-out text. GSM8K and BBH are generated, and exact matches; "
    "of BBH booleans and navigate have two answers, so that guessing in the right form gives a half.",
    experiments=("llama_zero_shot",),
    build=build,
    notes=notes,
    place=9,
)
