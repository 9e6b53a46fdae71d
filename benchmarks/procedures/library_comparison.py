"""Tries what EcoSpa and Torch-Pruning can do on one model, and checks it: the work of experiments/peers.py."""

from __future__ import annotations

import copy
import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import torch
from torch import nn

from baselines.torch_pruning import find_library
from benchmarks.capabilities.checks import (
    Failed,
    Nothing,
    Subject,
    Wrong,
    check_cut,
    check_decoding,
    check_loaded,
    check_training,
    prepare,
    saved_and_loaded,
)
from benchmarks.capabilities.libraries import PARTS, SIDES
from benchmarks.capabilities.reload import WAYS, described
from benchmarks.experiment import Run, RunContext, RunResult
from benchmarks.models import synthetic
from benchmarks.models.language import silence_transformers
from benchmarks.specs.capabilities import PeerSettings
from benchmarks.specs.synthetic import ModelShape
from benchmarks.timing.interleaved import interleave, ratio
from ecospa.accounting import parameters
from results.record import Metric

UNTESTED = "nothing was cut"


@dataclass(frozen=True)
class Finding:
    """Finding on one capability: "works", "fails" (its own error), "wrong", "nothing" (silently), "untested"."""

    capability: str
    outcome: str
    detail: str


def execute(run: Run, context: RunContext) -> RunResult:
    """Every capability of one side on one model; and, where asked for, the time of a cut by both sides, interleaved.

    Raises:
        ConfigError: Torch-Pruning is not installed.
    """
    settings: PeerSettings = run.cell.settings
    torch.set_num_threads(1)
    silence_transformers()
    find_library()  # its absence is no finding about it
    found_version = version("torch-pruning")
    subject = prepare(run.cell.method, settings, run.seed)
    findings = [tried(f"cut half of the {part}", partial(check_cut, subject, part)) for part in PARTS]
    context.progress(1, 3)
    parts = [part for part, finding in zip(PARTS, findings, strict=True) if finding.outcome == "works"]
    findings += after_a_cut(subject, parts)
    context.progress(2, 3)
    metrics = {"works": Metric(float(sum(finding.outcome == "works" for finding in findings)), "capabilities", True)}
    metrics["tried"] = Metric(float(len(findings)), "capabilities", None)
    if settings.timed is not None:
        metrics |= cut_times(settings.timed, settings.turns, run.seed)
    payload = {"findings": [dataclasses.asdict(finding) for finding in findings], "torch_pruning": found_version}
    return RunResult(metrics, "0" * 64, payload=payload)


def tried(capability: str, check: Callable[[], str]) -> Finding:
    """The finding of a check; whatever it raises is one."""
    try:
        return Finding(capability, "works", check())
    except Wrong as error:
        return Finding(capability, "wrong", str(error))
    except Failed as error:
        return Finding(capability, "fails", str(error))
    except Nothing as error:
        return Finding(capability, "nothing", str(error))
    except Exception as error:  # whatever it is, it is what the table says
        return Finding(capability, "fails", described(error))


def after_a_cut(subject: Subject, parts: Sequence[str]) -> list[Finding]:
    """Everything that needs a model which the side could cut."""
    names = {way: f"save and load, {way}" for way in WAYS}
    writes = _writes(subject.dense)
    if not parts:
        untested = [*(["decode with a cache"] if writes else []), *names.values(), "train on, optimizer kept"]
        return [Finding(name, "untested", UNTESTED) for name in untested]
    model = subject.cut(parts)
    findings = [tried("decode with a cache", lambda: check_decoding(model, subject.batch))] if writes else []
    saved = saved_and_loaded(subject, model)
    findings += [tried(name, partial(check_loaded, saved[way])) for way, name in names.items()]
    return [*findings, tried("train on, optimizer kept", lambda: check_training(subject, parts))]


def cut_times(shape: ModelShape, turns: int, seed: int) -> dict[str, Metric]:
    """Seconds of both sides from the call to the model without half of its heads, interleaved on copies of one."""
    torch.manual_seed(seed)
    dense = synthetic.build(shape).eval()
    batch = synthetic.random_batch(shape, 1, min(12, shape.length), torch.Generator().manual_seed(seed))
    warm_up = 1
    copies = {name: [copy.deepcopy(dense) for _ in range(warm_up + turns)] for name in SIDES}

    def halve(name: str) -> Callable[[int], None]:
        return lambda turn: SIDES[name].halve_heads(copies[name][turn], batch)

    ours, peer = interleave([halve(name) for name in ("ecospa", "torch_pruning")], turns, warm_up, "cpu")
    sizes = {parameters(model) for several in copies.values() for model in several}
    if len(sizes) != 1 or sizes == {parameters(dense)}:
        raise Wrong(f"the sides leave {sorted(sizes)} parameters of {parameters(dense)}; their times do not compare")
    return {
        "heads_time": Metric(statistics.median(ours), "s", False, n=turns),
        "peer_heads_time": Metric(statistics.median(peer), "s", False, n=turns),
        "heads_time_ratio": Metric(ratio(ours, peer), "EcoSpa / Torch-Pruning", False, n=turns),
    }


def _writes(model: nn.Module) -> bool:
    """Return True if a model generates text."""
    return type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
