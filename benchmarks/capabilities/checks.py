"""Checks of what a side has made of a model: each says in a few words what it saw, or raises what is the matter.

Nothing here asks the side how it went. What a cut has removed is found by comparing weights, a loaded model is asked in
a new process, and training on is compared with the dense model whose entries were held at zero.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ecospa
from baselines.calibration import Batch, outputs
from benchmarks.capabilities.libraries import PARTS, SIDES, Side
from benchmarks.capabilities.reload import WAYS, described
from benchmarks.capabilities.removed_entries import held_at_zero, removed_entries, zeroed
from benchmarks.models import synthetic
from benchmarks.specs.capabilities import PeerSettings
from benchmarks.specs.synthetic import ModelShape
from ecospa.accounting import parameters
from ecospa.plan import index_parameters

_ROOT = Path(__file__).resolve().parents[2]
_TOLERANCE = 1e-5  # of the largest output; transformers computes some norms in float32
_STEPS = 3
_NEW_TOKENS = 6


class Wrong(Exception):
    """A check has found something else than it wanted; the message says what."""


class Failed(Exception):
    """Something raised in another process or earlier; the message is its error."""


class Nothing(Exception):
    """Error-free return of what was asked for, with nothing changed."""


@dataclass(frozen=True)
class Subject:
    """One side with one model: the dense model in float64, without two equal slices, and a batch with labels."""

    side: str
    settings: PeerSettings
    dense: nn.Module
    batch: Batch

    @property
    def tool(self) -> Side:
        """The side's verbs."""
        return SIDES[self.side]

    def cut(self, parts: Sequence[str]) -> nn.Module:
        """A copy of the model without half of the named parts."""
        model = copy.deepcopy(self.dense)
        with time_limit(self.settings.limit):
            self.tool.cut(model, parts, self.batch)
        return model.eval()


def prepare(side: str, settings: PeerSettings, seed: int) -> Subject:
    """A model whose biases and norms are random, too: entries that are gone are found by the values that stay."""
    torch.manual_seed(seed)
    dense = synthetic.build(settings.model).double().eval()
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Subject(side, settings, dense, batch_of(settings.model, seed))


def batch_of(shape: ModelShape, seed: int) -> Batch:
    """Two short sequences or images, in float64."""
    made = synthetic.random_batch(shape, 2, min(12, shape.length), torch.Generator().manual_seed(seed + 1))
    return {name: value.double() if value.is_floating_point() else value for name, value in made.items()}


def check_cut(subject: Subject, part: str) -> str:
    """Check that half of a part is removed, and outputs are those of the dense model with those entries at zero."""
    model, dense = subject.cut([part]), subject.dense
    pairs = [pair for pair in ecospa.coupled_pairs(dense) if pair.kind in PARTS[part]]
    removable = sum(pair.width * index_parameters(dense, pair) for pair in pairs)
    removed = (parameters(dense) - parameters(model)) / removable
    if removed == 0:
        raise Nothing("no parameter is gone")
    if abs(removed - subject.settings.target) > 0.01:
        raise Wrong(f"{removed:.0%} of it is gone")
    difference = distance(model, zeroed(dense, removed_entries(dense, model)), subject.batch)
    if difference > _TOLERANCE:
        raise Wrong(f"outputs differ by {difference:.1e} of the largest from those with the entries at zero")
    return f"outputs within {difference:.0e} of those with the entries at zero"


def check_decoding(model: Any, batch: Batch) -> str:
    """Greedy text with and without the cache of keys and values."""
    tokens = batch["input_ids"]
    options = {"max_new_tokens": _NEW_TOKENS, "do_sample": False, "attention_mask": torch.ones_like(tokens)}
    written = [model.generate(tokens, use_cache=cached, **options) for cached in (True, False)]
    if not torch.equal(*written):
        raise Wrong("another text than without the cache")
    return f"the same {_NEW_TOKENS} tokens as without"


def saved_and_loaded(subject: Subject, model: nn.Module) -> dict[str, str | float]:
    """Way of saving -> largest difference of the outputs in a new process, or the error that came of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        request = {"side": subject.side, "shape": dataclasses.asdict(subject.settings.model)}
        (folder / "inputs.json").write_text(json.dumps(request))
        save_file({key: value.clone() for key, value in subject.batch.items()}, folder / "inputs.safetensors")
        savers: dict[str, Callable[[], None]] = {
            "safetensors": lambda: subject.tool.save(model, folder / "model"),
            "pickle": lambda: torch.save(model, folder / "model.pt"),
        }
        errors = {way: _error_of(savers[way]) for way in WAYS}
        command = [sys.executable, "-m", "benchmarks.capabilities.reload", str(folder)]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
        loaded: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        results: dict[str, str | float] = {}
        for way in WAYS:
            if error := errors[way] or loaded[way]:
                results[way] = error.replace(str(folder), "...")
            else:
                result = load_file(folder / f"{way}.outputs.safetensors")["outputs"]
                results[way] = _relative(result, _outputs(model, subject.batch))
        return results


def check_loaded(result: str | float) -> str:
    """Judge a loaded model by what a new process gave: its error, or the deviation of its outputs."""
    if isinstance(result, str):
        raise Failed(result)
    if result > _TOLERANCE:
        raise Wrong(f"the loaded model's outputs differ by {result:.1e} of the largest")
    return f"outputs of a new process within {result:.0e}"


def check_training(subject: Subject, parts: Sequence[str]) -> str:
    """Train, cut, train on with the same optimizer; compare with the dense model whose entries are held at zero."""
    model = copy.deepcopy(subject.dense)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, optimizer, subject, range(_STEPS))
    masked, masked_optimizer = copy.deepcopy((model, optimizer))
    subject.tool.cut(model, parts, subject.batch, optimizer)
    model.eval()
    removed = removed_entries(masked, model)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    lost = [name for name, parameter in model.named_parameters() if id(parameter) not in held]
    if lost:
        raise Wrong(f"silently trains no more: {len(lost)} of {len(list(model.parameters()))} tensors")
    train(model, optimizer, subject, range(_STEPS, 2 * _STEPS))
    train(masked, masked_optimizer, subject, range(_STEPS, 2 * _STEPS), lambda: held_at_zero(masked, removed))
    difference = distance(model, masked, subject.batch)
    if difference > _TOLERANCE:
        raise Wrong(f"outputs differ by {difference:.1e} of the largest from masked training")
    return f"outputs within {difference:.0e} of masked training"


def train(
    model: nn.Module, optimizer: Any, subject: Subject, steps: range, after: Callable[[], None] = lambda: None
) -> None:
    """Steps on batches of their own, in evaluation mode: nothing is random. `after` mends weights and gradients."""
    after()
    for step in steps:
        batch = batch_of(subject.settings.model, 100 + step)
        optimizer.zero_grad()
        logits = outputs(model, batch)
        logits.square().mean().backward()  # not the model's own loss, which transformers computes in float32
        after()
        optimizer.step()
        after()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so many processor seconds, in the main thread of a Unix process; no limit elsewhere."""
    if not hasattr(signal, "SIGPROF") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} processor seconds")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def distance(model: nn.Module, other: nn.Module, batch: Batch) -> float:
    """Largest difference of the outputs over the largest output."""
    return _relative(_outputs(model, batch), _outputs(other, batch))


def _relative(value: Tensor, other: Tensor) -> float:
    return float((value - other).abs().max() / other.abs().max())


@torch.no_grad()
def _outputs(model: nn.Module, batch: Batch) -> Tensor:
    return outputs(model, batch)


def _error_of(action: Callable[[], None]) -> str:
    try:
        action()
    except Exception as error:  # whatever it is, it is what the table says
        return described(error)
    return ""
