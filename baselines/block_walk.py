"""One block after the other, each with the inputs that the already compressed blocks before it produce.

SparseGPT, Wanda and their like compress a model in this order: the calibration data runs through block 1, block 1 is
compressed, the compressed block's outputs are the inputs of block 2. Only the hidden states of one block are kept.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from baselines.calibration import Calibration
from ecospa import ConfigError
from ecospa.families import transformer_blocks

_CACHE = ("past_key_values", "cache")  # its name in older and newer releases of transformers

Observer = Callable[[Tensor], None]
"""Called with the inputs of a projection, (positions, in), once per batch and call."""


@dataclass
class BlockInputs:
    """One block and what flows into it.

    Attributes:
        name: dotted name of the block in the model.
        block: the block itself; change it in place.
    """

    name: str
    block: nn.Module
    _calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    @torch.no_grad()
    def observe(self, observers: Mapping[str, Observer]) -> list[Tensor]:
        """Run the block as it is now on all calibration data, and show observers what their projections are fed.

        Args:
            observers: name of a projection inside the block -> observer of its inputs.

        Returns:
            Outputs of the block, one (batch, time, width) per batch.
        """
        with ExitStack() as stack:
            for name, observer in observers.items():
                hook = self.block.get_submodule(name).register_forward_pre_hook(_shown(observer))
                stack.callback(hook.remove)
            return [_hidden(self.block(*args, **kwargs)) for args, kwargs in self._calls]

    def summed(
        self, names: Iterable[str], statistic: Callable[[Tensor], Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Sums over all calibration data of what a statistic makes of the inputs of projections.

        Args:
            names: projections inside the block.
            statistic: inputs (positions, in) -> sums over these positions.

        Returns:
            Projection -> sum, and projection -> positions behind it.

        Raises:
            ConfigError: a sum is NaN or infinite.
        """
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}

        def observer(name: str) -> Observer:
            def add(inputs: Tensor) -> None:
                sums[name] = statistic(inputs) + sums.get(name, 0)
                counts[name] = counts.get(name, 0) + len(inputs)

            return add

        self.observe({name: observer(name) for name in names})
        for name, value in sums.items():
            if not bool(torch.isfinite(value).all()):
                raise ConfigError(
                    f"{self.name}.{name}: its inputs are NaN or infinite; look for broken weights or data"
                )
        return sums, counts

    @property
    def hidden(self) -> list[Tensor]:
        """Hidden states that flow into the block, one (batch, time, width) per batch."""
        return [args[0] for args, _ in self._calls]


@torch.no_grad()
def walk_blocks(model: nn.Module, calibration: Calibration) -> Iterator[BlockInputs]:
    """Every block in order; what the caller does to one decides the inputs of the next.

    The model is in evaluation mode meanwhile, and without a key/value cache.
    """
    was_training = model.training
    model.eval()
    try:
        blocks = transformer_blocks(model)
        calls = _first_calls(model, next(iter(blocks.values())), calibration)
        for name, block in blocks.items():
            step = BlockInputs(name, block, calls)
            yield step
            if block is not list(blocks.values())[-1]:
                calls = [
                    ((new, *args[1:]), kwargs) for new, (args, kwargs) in zip(step.observe({}), calls, strict=True)
                ]
    finally:
        model.train(was_training)


def projections(block: nn.Module) -> dict[str, nn.Module]:
    """The matrices of a block that multiply hidden states, Linear or Conv1D, by their name inside the block."""
    return {name: module for name, module in block.named_modules() if isinstance(module, (nn.Linear, Conv1D))}


def matrix(module: Any) -> Tensor:
    """The weight of a Linear or Conv1D as (out, in): a view, so writing into it changes the module."""
    weight: Tensor = module.weight.data
    return weight.t() if isinstance(module, Conv1D) else weight


def oriented(module: nn.Module, mask: Tensor) -> Tensor:
    """A mask (out, in) in the shape of the weight of a Linear, or of a Conv1D, which is (in, out)."""
    return mask.t() if isinstance(module, Conv1D) else mask


def _shown(observer: Observer) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        observer(inputs[0].detach().flatten(0, -2))

    return hook


class _Reached(Exception):
    """The first block was called; nothing after it is needed."""


def _first_calls(model: nn.Module, block: nn.Module, calibration: Calibration) -> list[Any]:
    """Arguments with which the model calls its first block, per batch."""
    calls: list[Any] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args, {name: value for name, value in kwargs.items() if name not in _CACHE}))
        raise _Reached

    hook = block.register_forward_pre_hook(keep, with_kwargs=True)
    takes_cache = "use_cache" in inspect.signature(model.forward).parameters
    try:
        for batch in calibration.batches:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            try:
                model(**inputs, **({"use_cache": False} if takes_cache else {}))
            except _Reached:
                continue
    finally:
        hook.remove()
    return [_with_hidden_first(args, kwargs) for args, kwargs in calls]


def _with_hidden_first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return args, kwargs
    return (kwargs["hidden_states"],), {name: value for name, value in kwargs.items() if name != "hidden_states"}


def _hidden(result: Any) -> Tensor:
    hidden: Tensor = result[0] if isinstance(result, tuple) else result
    return hidden
