"""Records of what two sides can do, made up for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OUTCOMES = {
    ("ecospa", "gpt2"): ("works", "works"),
    ("torch_pruning", "gpt2"): ("nothing", "untested"),
    ("ecospa", "bert"): ("works", "works"),
    ("torch_pruning", "bert"): ("works", "fails"),
}
DETAILS = {
    "works": "outputs within 1e-15",
    "nothing": "no parameter is gone",
    "untested": "nothing was cut",
    "fails": "RuntimeError: size | mismatch",
}


def peers(seeds: int) -> Iterator[dict[str, Any]]:
    """Two capabilities of two sides on two models; EcoSpa's record of BERT has the time of a cut."""
    for (method, model), outcomes in OUTCOMES.items():
        names = ("cut half of the attention", "save and load, safetensors")
        findings = [
            {"capability": name, "outcome": outcome, "detail": DETAILS[outcome]}
            for name, outcome in zip(names, outcomes, strict=True)
        ]
        timed = (method, model) == ("ecospa", "bert")
        times = {"heads_time": 0.05, "peer_heads_time": 0.2, "heads_time_ratio": 0.25}
        for seed in range(seeds):
            yield {
                **{"experiment": "peers", "method": method, "target": 0.5, "seed": seed},
                "metrics": {"works": float(outcomes.count("works")), **(times if timed else {})},
                "model": {"name": model, "layers": 2},
                "payload": {"findings": findings, "torch_pruning": "1.6.1"},
            }
