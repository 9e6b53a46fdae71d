"""Made-up runs of `compare`: one-shot compression of three models by every method."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

DENSE_BLOCKS = 800_000
COMPARED = (
    *("ecospa", "surgeon", "flap", "llm_pruner", "wanda_sp", "slicegpt", "shortgpt", "low_rank", "torch_pruning"),
    *("sparsegpt", "wanda", "magnitude_one_shot", "magnitude_global_one_shot", "random_pairs", "uncoupled"),
)
_MASKED = ("sparsegpt", "wanda", "magnitude_one_shot", "magnitude_global_one_shot", "uncoupled")


def compared(seeds: int) -> Iterator[dict[str, Any]]:
    cells = [("dense", None, 1.0), ("wanda_2_4", None, 0.51)]
    cells += [(method, size, size) for method in COMPARED for size in (0.8, 0.5)]
    for model in ("gpt2", "stories260K", "llama"):
        for seed in range(seeds):
            for number, (method, target, size) in enumerate(cells):
                masked = method.startswith(_MASKED)
                cost = 1.0 if masked else 0.3 + 0.7 * size
                metrics = {
                    "perplexity": 20.0 / size ** (1 + 0.15 * (number // 2)) + 0.1 * seed,
                    "bits_per_byte": 1.5 / size,
                    "block_share": size,
                    "block_parameters": DENSE_BLOCKS * (1.0 if masked else size),
                    "block_parameters_nonzero": DENSE_BLOCKS * size,
                    "block_parameters_effective": DENSE_BLOCKS * size * (0.97 if masked else 1.0),
                    "forward_flops_ratio": cost,
                    "latency": 0.004 * cost,
                    "latency_ratio": cost + 0.02 * math.sin(number + seed),
                    "compression_time": 0.1 + 0.05 * number,
                }
                given = {"source": "some text", "sequences": 128, "sequence_length": 64, "seed": seed}
                yield {
                    **{"experiment": "compare", "method": method, "target": target, "seed": seed, "metrics": metrics},
                    "model": {"name": model, "layers": 4},
                    "payload": {"calibration": given},
                }
