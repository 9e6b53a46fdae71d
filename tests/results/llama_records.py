"""Records of fine-tuned LLaMAs and of their zero-shot tasks, made up for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DENSE_BLOCKS = 800_000
_MASKED = ("sparsegpt", "wanda", "magnitude", "dense")


FINETUNED = ("ecospa", "random_pairs", "surgeon", "llm_pruner", "flap", "slicegpt", "sparsegpt", "wanda", "magnitude")


def finetuned(seeds: int) -> Iterator[dict[str, Any]]:
    cells = [("dense", None), *((method, size) for method in FINETUNED for size in (0.8, 0.5))]
    for model in ("stories260K", "llama"):
        for procedure, worst in (("one-shot", 3.0), ("fine-tuned", 1.5)):
            for number, (method, target) in enumerate(cells):
                masked = method.startswith(_MASKED)
                for seed in range(seeds):
                    metrics = {
                        "perplexity": 20.0 / (target or 1.0) ** worst + 0.3 * number + 0.1 * seed,
                        "block_parameters": DENSE_BLOCKS * (1.0 if masked else target or 1.0),
                        "block_parameters_nonzero": DENSE_BLOCKS * (target or 1.0),
                    }
                    yield {
                        **{"experiment": "llama_finetuning", "method": method, "target": target, "seed": seed},
                        **{"metrics": metrics, "model": {"name": model}, "protocol": {"procedure": procedure}},
                    }


def zero_shot(seeds: int) -> Iterator[dict[str, Any]]:
    tasks = {"boolq": 2, "piqa": 2, "hellaswag": 4, "winogrande": 2, "arc_easy": 4, "arc_challenge": 4}
    tasks |= {"openbookqa": 4, "continuation": 4}
    for method, target in (("dense", None), ("ecospa", 0.5), ("sparsegpt", 0.5)):
        for seed in range(seeds):
            metrics = {"perplexity": 20.0 / (target or 1.0)}
            for task, choices in tasks.items():
                metrics[f"acc/{task}"] = 1 / choices + 0.1 * (target or 1.0) + 0.01 * seed
                metrics[f"acc_stderr/{task}"] = 0.04
                metrics[f"chance/{task}"] = 1 / choices
                if choices == 4:
                    metrics[f"acc_norm/{task}"] = metrics[f"acc/{task}"] + 0.02
            yield {
                **{"experiment": "llama_zero_shot", "method": method, "target": target, "seed": seed},
                **{"metrics": metrics, "model": {"name": "llama"}, "protocol": {"procedure": "fine-tuned"}},
            }
