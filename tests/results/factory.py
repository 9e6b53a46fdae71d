"""Records made up for tests: of one run, and of a whole tier with every experiment, method and seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results import SCHEMA_VERSION, Metric, PlanEvent, RunRecord, Store, config_hash

METHODS = ("ecospa", "ecospa_own_pace", "uncoupled", "uncoupled_importance", "random_pairs", "magnitude", "small_dense")
DENSE_BLOCKS = 800_000
_SETTINGS: dict[str, Any] = {
    "model": {"family": "gpt2", "layers": 4, "width": 128},
    "data": {"source": "docstrings", "train_bytes": 100_000},
    "protocol": {"tokenizer": "bpe-2048", "sequence_length": 64, "stride": 63, "split": "validation", "bos": True},
    "training": {"steps": 200, "batch_size": 8, "learning_rate": 0.002},
}


def make_record(number: int = 0, metrics: dict[str, float] | None = None, **changes: Any) -> RunRecord:
    """A valid record; `number` makes its id and start, `metrics` are bare values, `changes` any field or setting.

    `target`, `model`, `data`, `protocol` and `training` go into the configuration, whose hash is always right.
    """
    named = {"experiment": "coupled_vs_uncoupled", "tier": "smoke", "method": "ecospa"}
    named = {key: changes.pop(key, value) for key, value in named.items()}
    settings = {key: changes.pop(key, value) for key, value in {"target": 0.5, **_SETTINGS}.items()}
    config = {**named, "method_config": {"top_k": 0.3}, **settings}
    minute, second = divmod(number, 60)
    fields: dict[str, Any] = {
        **named,
        "schema_version": SCHEMA_VERSION,
        "id": f"20260101T{minute // 60:02d}{minute % 60:02d}{second:02d}Z-{number:08x}",
        "config": config,
        "config_hash": config_hash(config),
        "seed": 0,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "versions": {"python": "3.11.7", "torch": "2.11.0"},
        "device": {"kind": "cpu", "name": "Test CPU", "cores": 2, "threads": 2},
        "command": f"python -m benchmarks run {named['experiment']} --tier {named['tier']}",
        "data_fingerprint": "sha256:0011223344556677",
        "start": f"2026-01-01T{minute // 60:02d}:{minute % 60:02d}:{second:02d}+00:00",
        "seconds": 12.5,
        "metrics": {name: Metric(value, "", False) for name, value in (metrics or {}).items()},
        "plan_history": (),
        "loss_curve": (),
        "status": "finished",
        "error": None,
        "payload": {},
    }
    return RunRecord(**{**fields, **changes})


def fill(store: Store, tier: str = "smoke", seeds: int = 3) -> list[RunRecord]:
    """Append every experiment, method and seed of one tier; EcoSpa beats everything but the dense models."""
    made = [
        make_record(number, **{"tier": tier, **fields})
        for number, fields in enumerate(
            (
                *_training(seeds),
                *_mismatch(seeds),
                *_pretrained(seeds),
                *_compared(seeds),
                *_costs(seeds),
                *_llamas(seeds),
                *_finetuned(seeds),
                *_zero_shot(seeds),
            )
        )
    ]
    for record in made:
        store.append(record)
    return made


def filled(folder: Path, seeds: int = 3) -> Store:
    """A store in `folder` with every experiment of the smoke tier."""
    store = Store(folder)
    fill(store, seeds=seeds)
    return store


def _training(seeds: int) -> Iterator[dict[str, Any]]:
    for seed in range(seeds):
        yield _run("dense", None, seed)
        for target in (0.5, 0.3):
            for method in METHODS:
                yield _run(method, target, seed)


def _run(method: str, target: float | None, seed: int) -> dict[str, Any]:
    rank = (*METHODS, "dense").index(method)
    score = 60.0 + 1.3 * rank - (12.0 if "dense" in method else 0.0) + 8 * (1 - (target or 1.0)) + 0.4 * math.sin(seed)
    history = _history(method, target)
    last = history[-1]
    kept = round((target or 1.0) * DENSE_BLOCKS) if method == "magnitude" else last.block_parameters
    metrics = {
        "perplexity": score + 0.05 * math.cos(7 * seed + rank),
        "word_perplexity": score**1.3,
        "bits_per_byte": math.log2(score) / 3.6,
        "parameters": last.parameters,
        "parameters_nonzero": kept + 270_000,
        "block_parameters": last.block_parameters,
        "block_parameters_nonzero": kept,
        "step_flops": 6.0e9 * last.block_parameters / DENSE_BLOCKS + 1e9,
        "run_flops": 1.2e12 * (1 + (target or 1.0)) / 2,
        "step_time": 0.041 + 0.001 * rank,
        "final_step_time_ratio": 0.25 + 0.7 * last.block_parameters / DENSE_BLOCKS + 0.01 * seed,
        "peak_memory": 6.5e8 + 1e6 * rank,
        "eval_loss": math.log(score),
    }
    noise = [0.15 * math.sin(12.9898 * (step + 37 * seed + 5 * rank) ** 2) for step in range(200)]
    floor = math.log(score)
    curve = tuple((step, floor + 3.5 * math.exp(-step / 35) + noise[step - 1]) for step in range(1, 201))
    return {
        "method": method,
        "target": target,
        "seed": seed,
        "metrics": metrics,
        "plan_history": tuple(history),
        "loss_curve": curve,
    }


def _history(method: str, target: float | None) -> list[PlanEvent]:
    if method == "small_dense":
        return [_event(0, target or 1.0)]
    events = [_event(0, 1.0)]
    if method in ("dense", "magnitude"):
        return events
    end = (target or 1.0) + (0.12 if method == "ecospa_own_pace" else 0.0)
    for number in range(1, 21):
        left = (1 - number / 20) ** 3
        events.append(_event(10 + 7 * number, end + (1 - end) * left))
    return events


def _event(step: int, size: float) -> PlanEvent:
    widths = {
        f"transformer.h.{layer}.{kind}": round(full * min(1.0, size ** (0.6 + 0.3 * layer)))
        for layer in range(4)
        for kind, full in (("attn.qk", 32), ("attn.vo", 32), ("mlp.ffn", 512))
    }
    blocks = round(DENSE_BLOCKS * size)
    return PlanEvent(step, blocks + 270_000, blocks, widths)


def _mismatch(seeds: int) -> Iterator[dict[str, Any]]:
    shares = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9]
    worse = {"aligned": 1.0, "misaligned": 1.9, "random": 1.5}
    for seed in range(seeds):
        curves = [
            {
                "matrix": matrix,
                "removal": removal,
                "removed_share": shares,
                "relative_error": [min(1.4, factor * share**power * (1 + 0.02 * seed)) for share in shares],
            }
            for matrix, power in (("random", 0.6), ("scaled", 1.6), ("low_rank", 1.1), ("trained", 0.9))
            for removal, factor in worse.items()
        ]
        yield {
            **{"experiment": "mismatch_error", "method": "index_removal", "target": None, "seed": seed},
            "payload": {"curves": curves},
        }


def _pretrained(seeds: int) -> Iterator[dict[str, Any]]:
    for seed in range(seeds):
        stages = [
            {
                "size": size - 0.001 * seed,
                "parameters": round(260_000 * size),
                "perplexity_cut": 5.0 / size**2.2 + 0.1 * seed,
                "perplexity_recovered": 5.0 / size**0.9 + 0.05 * seed,
            }
            for size in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
        ]
        yield {
            **{"experiment": "pretrained_shrink", "method": "ecospa", "target": 0.5, "seed": seed},
            "metrics": {
                "perplexity_before": 4.9 + 0.01 * seed,
                "perplexity_cut": stages[-1]["perplexity_cut"],
                "perplexity_recovered": stages[-1]["perplexity_recovered"],
                "perplexity_dense_same_steps": 4.7 + 0.02 * seed,
            },
            "payload": {
                "stages": stages,
                "prompt": "Once upon a time",
                "text_before": "Once upon a time, there was a <little> girl | named Lily.",
                "text_after": "Once upon a time there was a dog.\nHe ran.",
            },
        }


COMPARED = (
    *("ecospa", "surgeon", "flap", "llm_pruner", "wanda_sp", "slicegpt", "shortgpt", "low_rank", "torch_pruning"),
    *("sparsegpt", "wanda", "magnitude_one_shot", "magnitude_global_one_shot", "random_pairs", "uncoupled"),
)
_MASKED = ("sparsegpt", "wanda", "magnitude_one_shot", "magnitude_global_one_shot", "uncoupled")


def _compared(seeds: int) -> Iterator[dict[str, Any]]:
    cells = [("dense", None, 1.0), ("wanda_2_4", None, 0.51)]
    cells += [(method, size, size) for method in COMPARED for size in (0.8, 0.5)]
    for model in ("gpt2", "stories260K"):
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


def _costs(seeds: int) -> Iterator[dict[str, Any]]:
    for number, method in enumerate(COMPARED):
        for seed in range(seeds):
            common = {"experiment": "pruning_cost", "method": method, "target": 0.5, "seed": seed}
            if method == "torch_pruning":
                error = "Traceback (most recent call last):\nRuntimeError: nothing was | removed"
                yield {**common, "model": {"name": "gpt2"}, "status": "failed", "error": error}
                continue
            metrics = {
                "compression_time": 0.2 + 0.1 * number + 0.01 * seed,
                "time_to_plan_and_apply": 1.0 + number,
                "memory_on_top": 1e7 * (1 + number),
                "peak_memory": 6e8,
                "block_parameters": DENSE_BLOCKS / 2,
                "block_parameters_nonzero": DENSE_BLOCKS / 2,
                "block_parameters_effective": DENSE_BLOCKS / 2,
            }
            yield {**common, "model": {"name": "gpt2"}, "metrics": metrics}


def _llamas(seeds: int) -> Iterator[dict[str, Any]]:
    cells = [(method, None) for method in ("dense", "galore", "low_rank", "lora")]
    for number, (method, target) in enumerate([*cells, ("ecospa", 0.5), ("small_dense", 0.5)]):
        for seed in range(seeds):
            metrics = {
                "perplexity": 30.0 + number + 0.1 * seed,
                "bits_per_byte": 1.5,
                "parameters": 1_000_000 * (target or 1.0),
                "training_bytes_peak": 1.6e7 if method in ("dense", "ecospa") else 1.1e7,
                "training_bytes": 1.6e7 * (target or 1.0),
            }
            rate = {"steps": 200, "batch_size": 8, "learning_rate": 0.01 if method == "galore" else 0.002}
            common = {"experiment": "llama_pretraining", "method": method, "target": target, "seed": seed}
            yield {**common, "metrics": metrics, "training": rate}


FINETUNED = ("ecospa", "random_pairs", "surgeon", "llm_pruner", "flap", "slicegpt", "sparsegpt", "wanda", "magnitude")


def _finetuned(seeds: int) -> Iterator[dict[str, Any]]:
    cells = [("dense", None), *((method, size) for method in FINETUNED for size in (0.8, 0.5))]
    for model in ("stories260K", "llama"):
        for procedure, worst in (("one-shot", 3.0), ("fine-tuned", 1.5)):
            for number, (method, target) in enumerate(cells):
                masked = method.startswith(_MASKED) or method in ("magnitude", "dense")
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


def _zero_shot(seeds: int) -> Iterator[dict[str, Any]]:
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
