"""Records of measured speeds and bytes, made up for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from results import PlanEvent

MODELS = ("gpt2", "llama", "bert", "vit")
_CELLS = ((0.7, 4), (0.5, 4), (0.3, 4), (0.5, 1), (0.5, 16))
_HELD = {"weights": 4e7, "gradients": 4e7, "optimizer": 8e7}
_DENSE_PEAK = 4e8


def speeds(seeds: int) -> Iterator[dict[str, Any]]:
    """Training, reading and writing at every size and batch; the smallest ViT is slower than the whole one."""
    for number, model in enumerate(MODELS):
        for target, batch in _CELLS:
            for seed in range(seeds):
                flops = 0.1 + 0.9 * target
                ratio = 1.2 if (model, target) == ("vit", 0.3) else flops * (1.02 + 0.02 * number + 0.001 * seed)
                yield {**speed_run("training_speed", model, target, seed, batch=batch), **_step(flops, ratio, batch)}
                if (target, batch) == (0.5, 4) and number < 2:
                    fused = speed_run("training_speed", model, target, seed, batch=batch, mode="fused")
                    yield {**fused, "metrics": _in_mode(flops, 0.98 * ratio, batch)}
                for phase in ("prefill", "decode")[: 2 if number < 2 else 1]:
                    common = speed_run("inference_speed", model, target, seed, phase=phase, batch=batch)
                    yield {**common, "metrics": _reading(flops, ratio, batch, phase)}
                    if (phase, target, batch) == ("prefill", 0.5, 1) and model != "vit":
                        for length in (512, 2048):
                            long = speed_run(
                                "inference_speed", model, target, seed, phase=phase, batch=1, sequence=length
                            )
                            long["model"]["length"] = length
                            yield {**long, "metrics": _reading(flops, ratio + length / 2e4, batch, phase)}
                    if (phase, target, batch) == ("decode", 0.5, 4):
                        merged = speed_run(
                            "inference_speed", model, target, seed, phase=phase, batch=batch, mode="merged"
                        )
                        faster = {"mode_latency_ratio": 0.9}
                        yield {**merged, "metrics": _reading(flops, 0.9 * ratio, batch, phase) | faster}


def memories(seeds: int) -> Iterator[dict[str, Any]]:
    """Bytes of training to every size, at half of the blocks within a budget, too."""
    for model in MODELS:
        for target, budget in ((0.7, None), (0.5, None), (0.3, None), (0.5, 0.7), (None, None)):
            for seed in range(seeds):
                method = "dense" if target is None else "ecospa"
                yield {
                    **speed_run("training_memory", model, target, seed, method, batch=16, budget=budget),
                    **_bytes(target or 1.0, budget),
                }


def speed_run(
    experiment: str, model: str, target: float | None, seed: int, method: str = "ecospa", **protocol: Any
) -> dict[str, Any]:
    """Return the fields that decide a speed run, in the protocol that is given besides the usual one."""
    return {
        **{"experiment": experiment, "method": method, "target": target, "seed": seed},
        "model": {"name": model, "layers": 6, "width": 512, "length": 128, "hidden": None, "patch": 4},
        "data": {"source": "random numbers"},
        "protocol": {"phase": "training", "sequence": 128, "turns": 9, "device": "cpu", **protocol},
        "data_fingerprint": "0" * 64,
    }


def _step(flops: float, ratio: float, batch: int) -> dict[str, Any]:
    whole = 0.1 * batch
    metrics = {
        **{"step_time": whole * ratio, "dense_step_time": whole, "throughput": 128 * batch / (whole * ratio)},
        **{"step_time_ratio": ratio, "step_flops_ratio": flops, "step_time_over_flops": ratio / flops},
        **{"swapped_step_time_ratio": 1.01, "foretold_step_time_ratio": flops, "block_share": (flops - 0.1) / 0.9},
        **{"estimator_share": 0.009, "event_steps": 0.2, "parameters": 2e7 * flops},
    }
    work = {
        name: {"flops": 1e11 * share * batch, "bytes": 2e9 * share * batch, "seconds": seconds}
        for name, share, seconds in (("dense", 1.0, whole), ("shrunk", flops, whole * ratio))
    }
    return {"metrics": metrics, "payload": {"roofline": {"device": {"arithmetic": 2e12, "bandwidth": 2e10}, **work}}}


def _in_mode(flops: float, ratio: float, batch: int) -> dict[str, float]:
    plain: dict[str, float] = _step(flops, ratio, batch)["metrics"]
    absent = ("swapped_step_time_ratio", "foretold_step_time_ratio", "estimator_share", "event_steps")
    modes = {"mode_step_time_ratio": 0.78, "dense_mode_step_time_ratio": 0.8}
    return {name: value for name, value in plain.items() if name not in absent} | modes


def _reading(flops: float, ratio: float, batch: int, phase: str) -> dict[str, float]:
    latency = 0.02 * batch
    return {
        **{"latency": latency * ratio, "dense_latency": latency, "block_share": (flops - 0.1) / 0.9},
        **{"throughput": 96 * batch / (latency * ratio), "dense_throughput": 96 * batch / latency},
        **{"throughput_ratio": 1 / ratio, "forward_flops_ratio": flops, "latency_over_flops": ratio / flops},
        **{"swapped_latency_ratio": 1.0, "parameters": 2e7 * flops},
        **({"cache_bytes_ratio": flops} if phase == "decode" else {}),
    }


def _bytes(size: float, budget: float | None) -> dict[str, Any]:
    sizes = [1.0, 1.0, *(1.0 - (1.0 - size) * number / 4 for number in range(1, 5)), size, size]
    most = _DENSE_PEAK * (budget or 1.0)
    rows = [
        {**{name: value * kept for name, value in _HELD.items()}, "peak": most * (0.4 + 0.6 * kept), "micro_batch": 8}
        for kept in sizes
    ]
    held = {f"{name}_bytes": value * size for name, value in _HELD.items()}
    peaks = [row["peak"] for row in rows]
    metrics = {
        **{"dense_peak_memory": _DENSE_PEAK, "peak_memory": max(peaks), "steady_memory": peaks[-1]},
        **{"mean_memory": sum(peaks) / len(peaks), **held, "training_bytes": sum(held.values())},
        **{"foretold_training_bytes": 1.001 * sum(held.values())},
        **{"foretold_steady_memory": 1.05 * peaks[-1], "parameters": 2e7 * size},
    }
    for name in ("peak", "steady", "mean"):
        metrics[f"{name}_memory_ratio"] = metrics[f"{name}_memory"] / _DENSE_PEAK
    if budget is not None:
        metrics["memory_limit"] = most
    events = [PlanEvent(0, 20_000_000, 18_000_000, {})]
    events += [PlanEvent(step, round(2e7 * kept), round(1.8e7 * kept), {}) for step, kept in enumerate(sizes[2:6], 2)]
    return {"metrics": metrics, "payload": {"steps": rows}, "plan_history": tuple(events)}
