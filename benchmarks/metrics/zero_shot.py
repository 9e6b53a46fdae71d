"""Accuracy at the tasks of lm-eval: its prompts, its scoring and its standard errors, on models of any width."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from results.record import Metric

Specification = str | dict[str, Any]
_BOOTSTRAPS = 100  # for metrics without a formula of their standard error; accuracies have one


def zero_shot_metrics(
    model: nn.Module,
    tokenizer: Any,
    specifications: Sequence[Specification],
    folders: Sequence[str],
    length: int,
    limit: int | None,
    batch_size: int,
) -> dict[str, Metric]:
    """Every metric of every task, its standard error, and what guessing would give.

    Args:
        model: causal language model; its mode is put back afterwards.
        tokenizer: its own.
        specifications: tasks as the harness takes them.
        folders: of lm-eval's task files, those of the specifications that are names.
        length: tokens of context and answer at most; a context that is too long loses its beginning, an answer its end.
        limit: questions per task, the first ones; None for all.
        batch_size: sequences at a time.

    Returns:
        "acc/piqa", "acc_stderr/piqa", "chance/piqa" and so on; chance is the mean of one over the number of choices,
        of multiple-choice tasks alone.
    """
    from lm_eval import simple_evaluate  # takes seconds to import, and one experiment needs it
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    was_training = model.training
    model.eval()
    wrapped = _wrapped(model, tokenizer, length, batch_size)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress lines would run through the suite's own
        results = simple_evaluate(
            model=wrapped,
            tasks=list(specifications),
            limit=limit,
            bootstrap_iters=_BOOTSTRAPS,
            task_manager=TaskManager(include_path=list(folders), include_defaults=False),
        )
    model.train(was_training)
    assert results is not None  # it is, on the first process
    metrics: dict[str, Metric] = {}
    for task, scores in results["results"].items():
        samples = results.get("samples", {}).get(task, [])
        metrics |= _scores(task, scores, _questions(task, results))
        if samples and "acc,none" in scores:
            metrics[f"chance/{task}"] = Metric(chance(samples), "", None, len(samples))
    return metrics


def _wrapped(model: nn.Module, tokenizer: Any, length: int, batch_size: int) -> Any:
    """The model as the harness takes it; an answer longer than the model can hold, at which it stops, is cut."""
    from lm_eval.models.huggingface import HFLM

    class Cutting(HFLM):
        def _loglikelihood_tokens(self, requests: Any, *arguments: Any, **options: Any) -> Any:
            cut = [(texts, context, answer[: self.max_length]) for texts, context, answer in requests]
            return super()._loglikelihood_tokens(cut, *arguments, **options)

    return Cutting(pretrained=model, tokenizer=tokenizer, backend="causal", max_length=length, batch_size=batch_size)


def chance(samples: Sequence[Mapping[str, Any]]) -> float:
    """Expected accuracy of guessing: mean of 1 / choices, over the harness's samples of a multiple-choice task."""
    return sum(1 / len(sample["resps"]) for sample in samples) / len(samples)


def _questions(task: str, results: Mapping[str, Any]) -> int:
    """Count the questions behind the scores of a task, or of a group with all of its tasks.

    Args:
        task: name of a task or a group.
        results: what the harness gives back. Its samples are not counted: they repeat a question for every filter.
    """
    if task in results["n-samples"]:
        return int(results["n-samples"][task]["effective"])
    return sum(_questions(member, results) for member in results["group_subtasks"].get(task, ()))


def _scores(task: str, scores: Mapping[str, Any], count: int) -> dict[str, Metric]:
    """The harness's "metric,filter" entries as "metric/task", or "metric-filter/task" where a filter has a name."""
    metrics = {}
    for key, value in scores.items():
        metric, comma, kind = key.partition(",")
        if not comma or not isinstance(value, (int, float)):
            continue
        name = metric if kind == "none" else f"{metric}-{kind}"
        higher = None if metric.endswith("_stderr") else True
        metrics[f"{name}/{task}"] = Metric(float(value), "", higher, max(count, 1))
    return metrics
