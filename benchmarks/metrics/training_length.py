"""Length of a training: steps, tokens for each block parameter, and the size that the model had on average meanwhile.

How much text a model has seen for its size decides whether size matters at all, and a loss follows the average number
of parameters (arXiv 2501.12486), so both stand in every record.
"""

from __future__ import annotations

from collections.abc import Sequence

from results.plan_history import PlanEvent
from results.record import Metric


def training_length_metrics(
    history: Sequence[PlanEvent], steps: int, tokens: int, dense_blocks: int
) -> dict[str, Metric]:
    """Steps, tokens per block parameter of the dense model, and average sizes.

    Args:
        history: size after every event, the first at step 0; masked parameters do not count.
        steps: of the run.
        tokens: of all steps together, with repetitions.
        dense_blocks: block parameters of the dense model.
    """
    mean = average([event.parameters for event in history], history, steps)
    return {
        "training_steps": Metric(float(steps), "steps", None),
        "tokens_per_parameter": Metric(tokens / dense_blocks, "tokens per block parameter", None),
        "average_parameters": Metric(mean, "parameters", None),
        "average_block_parameters": Metric(average_blocks(history, steps), "parameters", None),
    }


def average_blocks(history: Sequence[PlanEvent], steps: int) -> float:
    """Block parameters of a model on average over the steps of its run."""
    return average([event.block_parameters for event in history], history, steps)


def average(sizes: Sequence[int], history: Sequence[PlanEvent], steps: int) -> float:
    """Mean over steps of the size before every step.

    Args:
        sizes: after each event of the history.
        history: events, the first at step 0.
        steps: of the run.
    """
    ends = [*(event.step for event in history[1:]), steps]
    lengths = [end - event.step for event, end in zip(history, ends, strict=True)]
    return sum(size * length for size, length in zip(sizes, lengths, strict=True)) / steps
