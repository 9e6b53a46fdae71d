"""find_shape: the widths that EcoSpa comes to in a short training, for a fresh model of that shape to start from.

The paper shrinks the model that it trains. Where a fresh model of the final shape is level with the shrunk one, the
shape is what the method finds, and a probe of a part of the steps may find it for less.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from ecospa.accounting import training_flops
from ecospa.config import ConfigError, EcoSpaConfig
from ecospa.families import transformer_blocks
from ecospa.shape import Shape
from ecospa.shape_rules import average
from ecospa.small_model import Build, built, seeded
from ecospa.sparsity import CoupledSparsity
from ecospa.trace import output_loss, weightless

Batches = Iterable[Any] | Callable[[int], Iterable[Any]]
"""Batches, begun again when they end, or a function that makes them from the seed of a probe."""
PROBE_SHARE = 0.2
"""Steps of a probe over those of the training that it is for, unless told otherwise."""
LEARNING_RATE = 1e-3


def find_shape(
    build: Build,
    batches: Batches,
    target_size: float = 0.5,
    *,
    config: EcoSpaConfig | None = None,
    steps: int | None = None,
    total_steps: int | None = None,
    probes: int = 1,
    seed: int = 0,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] = output_loss,
) -> Shape:
    """The widths that EcoSpa leaves after a short training of a fresh model; several probes are averaged.

    Every probe is a plain loop of backward, after_backward, step and after_step under a seed of its own, and ends when
    the target is reached. Its weights are thrown away. The random state of the process stays as it was.

    Args:
        build: makes the dense model with fresh weights, on its device; called once for each probe, under its seed.
        batches: what `loss` takes, on that device: mappings of what the model is called with, labels included; or a
            function of the probe's seed that gives them.
        target_size: c, share of the parameters in the scope of `config` that is left; replaces that of `config`.
        config: the method with all its switches; None is the paper's. Without an `end_step` the target is reached at
            the last step of the probe.
        steps: optimizer steps of a probe; None is the `end_step` of `config`, else a fifth of `total_steps`.
        total_steps: of the training that the shape is for.
        probes: trainings, with the seeds seed, seed + 1, ...; their mean widths are rounded to the allowed ones and
            landed on the target (ecospa.shape_rules.average).
        seed: of the first probe: its weights, its dropout, and batches drawn from torch's own random numbers.
        optimizer: makes the optimizer of a model; None is AdamW at a rate of 1e-3.
        loss: the loss of a model for a batch; by default the one that a transformers model returns.

    Returns:
        The shape, within one width step above the target, with steps, seeds and FLOPs of the probes.

    Raises:
        ConfigError: a number is out of range, the target cannot be reached, or was not in so many steps, the batches
            ended, or build() returned no model or one that it had returned before.
        ShapeError: build() returned a model that has been cut.
        UnsupportedModelError: the model cannot be cut.

    Deviation: the paper trains on with what is left.
    """
    steps = _steps(steps, total_steps, config)
    _check_count("probes", probes, "1 is a single training")
    config = EcoSpaConfig(target_size=target_size) if config is None else replace(config, target_size=target_size)
    if config.end_step is None:
        config = replace(config, end_step=steps)
    if config.end_step is not None and config.end_step > steps:
        raise ConfigError(f"config.end_step is {config.end_step}; it must lie in [1, {steps}], the steps of a probe")
    search = _Search(batches, config, steps, optimizer or _adamw, loss)
    shapes = [search.probe(build, seed + number) for number in range(probes)]
    return shapes[0] if probes == 1 else average(search.skeleton, shapes, search.config)


class _Search:
    """Probes of one search.

    Attributes:
        config: with the width rule that the first model's device led to.
        skeleton: shapes of the dense model, without values.
    """

    skeleton: nn.Module

    def __init__(
        self,
        batches: Batches,
        config: EcoSpaConfig,
        steps: int,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        loss: Callable[[nn.Module, Any], Tensor],
    ) -> None:
        self.config = config
        self._batches, self._steps, self._optimizer, self._loss = batches, steps, optimizer, loss
        self._before: weakref.ref[nn.Module] | None = None

    def probe(self, build: Build, seed: int) -> Shape:
        """Train one model until it has reached the target."""
        with seeded(seed):
            model = built(build)
            if self._before is not None and self._before() is model:
                raise ConfigError(
                    "build() returned the model that it had returned before; make a new one at every call"
                )
            self._before = weakref.ref(model)
            self.skeleton = weightless(model)
            Shape.build(self.skeleton, {})  # refuses a model that has been cut, before it is trained
            sparsity = CoupledSparsity(model.train(), self._optimizer(model), self.config)
            if self.config.width_multiple == "auto":  # measured once, or probes could be rounded differently
                self.config = replace(self.config, width_multiple=sparsity.sparsifier.rule)
            flops = self._train(model, sparsity, seed)
        sparsity.release()
        if not sparsity.reached:
            raise ConfigError(f"steps is {self._steps}: {sparsity.report()}; give more steps, or an end_step in config")
        widths = dict(sparsity.history[-1].widths)
        return Shape.build(
            self.skeleton, widths, rule="probe", settings=asdict(self.config), seeds=(seed,),
            probe_steps=sparsity.step, probe_flops=flops,
        )  # fmt: skip

    def _train(self, model: nn.Module, sparsity: CoupledSparsity, seed: int) -> int | None:
        """Optimizer steps until the target; returns their FLOPs, None where they cannot be counted."""
        counter = _FlopCounter(model, sparsity)
        for batch in _endless(self._batches, seed, self._steps):
            if sparsity.finished:
                break
            with counter.watching():
                value = self._loss(model, batch)
            counter.count()
            torch.autograd.backward(value)
            sparsity.after_backward()
            sparsity.optimizer.step()
            sparsity.after_step()
            sparsity.optimizer.zero_grad()
        return counter.flops


class _FlopCounter:
    """FLOPs of training steps, from the hidden states that reach the first block: any model, images or text.

    Attributes:
        flops: so far; None once a step had hidden states of another form than (examples, tokens, width).
    """

    def __init__(self, model: nn.Module, sparsity: CoupledSparsity) -> None:
        self.flops: int | None = 0
        self._model, self._sparsity = model, sparsity
        self._first = next(iter(transformer_blocks(model).values()))
        self._seen: list[tuple[int, ...]] = []
        self._known: dict[tuple[int, ...], int] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch forward passes: not longer, as a hook that is there at a cut would be tried with the block."""
        self._seen.clear()
        hook = self._first.register_forward_pre_hook(self._see, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def count(self) -> None:
        """Add the FLOPs of a step whose forward passes were watched."""
        if self.flops is None or not self._seen or any(len(shape) != 3 for shape in self._seen):
            self.flops = None
            return
        for examples, tokens, _ in self._seen:
            key = (len(self._sparsity.history), examples, tokens)
            if key not in self._known:
                self._known[key] = training_flops(self._model, examples, tokens)
            self.flops += self._known[key]

    def _see(self, block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        states = inputs[0] if inputs else named.get("hidden_states")
        self._seen.append(tuple(states.shape) if isinstance(states, Tensor) else ())


def _endless(batches: Batches, seed: int, steps: int) -> Iterator[Any]:
    """Batches of so many steps, begun again when they end."""
    source = batches if isinstance(batches, Iterable) else batches(seed)
    done = 0
    while done < steps:
        before = done
        for batch in source:
            yield batch
            done += 1
            if done == steps:
                return
        if done == before:
            more = "hold no batch" if done == 0 else f"ended after {done} of {steps} steps and cannot begin again"
            raise ConfigError(f"batches {more}; give a list, a DataLoader, or a function that makes them from a seed")


def _steps(steps: int | None, total_steps: int | None, config: EcoSpaConfig | None) -> int:
    """Steps of a probe."""
    if steps is None and config is not None:
        steps = config.end_step
    if steps is not None:
        return _check_count("steps", steps, "a fifth of the training's is a start")
    if total_steps is None:
        raise ConfigError(
            "steps and total_steps are None; give the steps of a probe, or of the training that it is for"
        )
    return math.ceil(PROBE_SHARE * _check_count("total_steps", total_steps, "a probe takes a fifth of them"))


def _check_count(name: str, value: Any, advice: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1; {advice}")
    return value


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
