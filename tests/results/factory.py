"""Records made up for tests: of one run, and of a whole tier with every experiment, method and seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from results import SCHEMA_VERSION, Metric, PlanEvent, RunRecord, Store, config_hash
from tests.results.compare_records import COMPARED, DENSE_BLOCKS, compared
from tests.results.glue_records import glue
from tests.results.llama_records import finetuned, zero_shot
from tests.results.peer_records import peers
from tests.results.speed_records import memories, speeds

METHODS = ("ecospa", "ecospa_own_pace", "uncoupled", "uncoupled_importance", "random_pairs", "magnitude", "small_dense")
_SETTINGS: dict[str, Any] = {
    "model": {"family": "gpt2", "layers": 4, "width": 128},
    "data": {"source": "docstrings", "train_bytes": 100_000},
    "protocol": {"tokenizer": "bpe-2048", "sequence_length": 64, "stride": 63, "split": "validation", "bos": True},
    "training": {"steps": 200, "batch_size": 8, "learning_rate": 0.002},
}


def make_record(number: int = 0, metrics: Mapping[str, float | Metric] | None = None, **changes: Any) -> RunRecord:
    """A valid record; `number` makes its id and start, `metrics` are values, `changes` any field or setting.

    `target`, `model`, `data`, `protocol`, `training` and `method_config` go into the configuration; its hash is right.
    """
    named = {"experiment": "coupled_vs_uncoupled", "tier": "smoke", "method": "ecospa"}
    named = {key: changes.pop(key, value) for key, value in named.items()}
    method_config = changes.pop("method_config", {"top_k": 0.3})
    settings = {key: changes.pop(key, value) for key, value in {"target": 0.5, **_SETTINGS}.items()}
    config = {**named, "method_config": method_config, **settings}
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
        "metrics": {
            name: value if isinstance(value, Metric) else Metric(value, "", False)
            for name, value in (metrics or {}).items()
        },
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
                *compared(seeds),
                *_costs(seeds),
                *peers(seeds),
                *_llamas(seeds),
                *(*finetuned(seeds), *zero_shot(seeds)),
                *_classifiers(seeds),
                *_gpt2s(seeds),
                *_measures(seeds),
                *_grid(seeds),
                *_limits(seeds),
                *_squad(seeds),
                *_sst2(seeds),
                *glue(seeds),
                *(*speeds(seeds), *memories(seeds)),
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


def _classifiers(seeds: int) -> Iterator[dict[str, Any]]:
    """Two models of `deit_imagenet` and one of `vit_cifar10`; the larger a model, the better it is."""
    models = (
        ("vit_cifar10", "vit", 0.8e6),
        ("deit_imagenet", "deit_tiny", 5.5e6),
        ("deit_imagenet", "deit_small", 21e6),
    )
    for experiment, name, blocks in models:
        other = "svite" if experiment == "deit_imagenet" else "random_pairs"
        cells = [("dense", None), *((method, 0.5) for method in ("small_dense", other, "magnitude", "ecospa"))]
        for number, (method, target) in enumerate(cells):
            for seed in range(seeds):
                wave = 0.002 * math.sin(seed + number)
                top1 = 0.5 + 0.05 * math.log10(blocks * (target or 1.0)) - 0.004 * number + wave
                metrics = {
                    "top1": top1,
                    "top5": top1 + 0.1,
                    "eval_loss": 2.0 - top1,
                    "parameters": blocks * (1.0 if method == "magnitude" else target or 1.0) + 4e5,
                    "block_parameters_nonzero": blocks * (target or 1.0),
                    "step_flops": 600 * blocks,
                    "step_time": 0.05,
                    "training_bytes_peak": 16 * blocks,
                    "training_bytes": 16 * blocks * (target or 1.0),
                }
                model = {"name": name, "layers": 12, "drop_path": 0.1}
                common = {"experiment": experiment, "method": method, "target": target, "seed": seed, "model": model}
                yield {**common, "metrics": metrics, "data": {"source": "images"}, "protocol": {"split": "test"}}


def _gpt2s(seeds: int) -> Iterator[dict[str, Any]]:
    cells = [("dense", None, 1.0), ("dense_twice_steps", None, 1.0)]
    cells += [(method, size, size) for size in (0.625, 0.4545) for method in ("ecospa", "small_dense")]
    for number, (method, target, size) in enumerate(cells):
        for seed in range(seeds):
            metrics = {"perplexity": 20.0 + number + 0.1 * seed, "parameters": 940_000 * size}
            steps = {"steps": 400 if method == "dense_twice_steps" else 200, "batch_size": 8}
            common = {"experiment": "gpt2_pretraining", "method": method, "target": target, "seed": seed}
            yield {**common, "metrics": metrics, "training": steps, "model": {"name": "GPT-2, 4 layers"}}


MEASURES = ("gradient", "taylor", "weight", "activation", "entropy", "random")


def _measures(seeds: int) -> Iterator[dict[str, Any]]:
    cells = [("dense", None), ("ecospa", 0.36), ("small_dense", 0.36)]
    cells += [(f"importance_{name}", 0.36) for name in MEASURES]
    for number, (method, target) in enumerate(cells):
        for seed in range(seeds):
            history = (_event(0, 1.0), *([_event(90, target)] if target else []))
            metrics = {"perplexity": 50.0 + number + 0.2 * math.sin(number + seed), "block_parameters": 1e5}
            common = {"experiment": "importance_metrics", "method": method, "target": target, "seed": seed}
            yield {**common, "metrics": metrics, "plan_history": history}


def _grid(seeds: int) -> Iterator[dict[str, Any]]:
    for stage, slope in (("from scratch", -4.0), ("trained", 6.0)):
        model = {"name": stage, "layers": 4}
        for seed in range(seeds):
            common = {"experiment": "k_theta_sweep", "seed": seed, "model": model}
            yield {**common, "method": "dense", "target": None, "metrics": {"perplexity": 50.0 + 0.1 * seed}}
            for top_k in (0.1, 0.3, 0.5):
                for theta in (0.7, 0.9, 0.95):
                    score = 60.0 + slope * theta + 2 * top_k + 0.1 * seed + 0.05 * math.sin(9 * theta + seed)
                    yield {
                        **{**common, "method": f"ecospa_k{100 * top_k:.0f}_theta{100 * theta:.0f}", "target": 0.4},
                        "method_config": {"top_k": top_k, "importance_threshold": theta},
                        "metrics": {"perplexity": score, "shrink_events": 20.0, "block_parameters": 0.4 * DENSE_BLOCKS},
                    }


def _limits(seeds: int) -> Iterator[dict[str, Any]]:
    widths = [1.0, *(number / 10 for number in range(9, 0, -1))]
    for number, part in enumerate(("qk", "vo", "ffn", "early", "middle", "late")):
        for seed in range(seeds):
            rows = [
                {
                    "width": width,
                    "block_share": 0.7 + 0.3 * width,
                    "perplexity_cut": 50 * (1 + (0.2 + 0.1 * number) * (1 - width) ** 2 + 0.01 * seed * (1 - width)),
                    "perplexity_recovered": 49 * (1 + 0.02 * number * (1 - width) ** 2),
                }
                for width in widths
            ]
            breaks = {"break_point_cut": 0.6 - 0.05 * number + 0.01 * seed, "perplexity_dense": 50.0}
            common = {"experiment": "sparsity_limits", "method": part, "target": None, "seed": seed}
            yield {**common, "metrics": breaks, "payload": {"curve": rows, "margin": 0.05}}


def _sst2(seeds: int) -> Iterator[dict[str, Any]]:
    """The map of a pretrained BERT on SST-2, from that of SQuAD."""
    model = {"layers": 6, "width": 384, "weights": "sentence-transformers/all-MiniLM-L6-v2"}
    for made in _squad(seeds):
        if made["method"] != "small_dense":
            score = 50.0 + 1.5 * made["metrics"]["f1"]
            kept = {name: made["metrics"][name] for name in ("block_parameters", "run_flops")}
            yield {
                **made,
                **{"experiment": "bert_sst2", "model": model, "data": {"source": "glue", "configuration": "sst2"}},
                "metrics": {"score": score, "majority_score": 50.9, **kept},
                "protocol": {"tokenizer": "bert-base-uncased", "sequence_length": 40, "score": "accuracy"},
            }


def _squad(seeds: int) -> Iterator[dict[str, Any]]:
    cells: list[tuple[str, float | None, float, float]] = [("dense", None, 0.3, 0.9)]
    cells += [(method, 0.5, 0.3, 0.9) for method in ("ecospa", "movement", "small_dense")]
    cells += [("ecospa_own_pace", 0.5, k, theta) for k in (0.1, 0.3, 0.5) for theta in (0.7, 0.9, 0.95)]
    for method, target, k, theta in cells:
        for seed in range(seeds):
            f1 = 20.0 + (5.0 if method == "dense" else 0.0) - 4 * k + 2 * theta + 0.1 * seed
            yield {
                **{"experiment": "bert_squad", "method": method, "target": target, "seed": seed},
                "method_config": {"top_k": k, "importance_threshold": theta},
                "metrics": {
                    **{"exact_match": f1 / 2, "f1": f1, "first_words_exact_match": 1.0, "first_words_f1": 4.0},
                    "block_parameters": DENSE_BLOCKS * (target or 1.0),
                    "run_flops": 1e12 * (1.0 if target is None else 0.5 + 0.4 * (1 - k) * theta),
                },
                "data": {"source": "squad", "configuration": "plain_text"},
                "protocol": {"tokenizer": "bert-base-uncased", "sequence_length": 128, "stride": 48},
                "plan_history": (_event(0, 1.0), *([_event(90, target)] if target else [])),
            }
