"""Dead structures: heads and FFN channels that are stored but out of use, and that may come back.

Entries of `baselines.masks` are gone for good, zero in every matrix. A structure that may return has to keep a gradient
that says what it would be worth: it is dead on its output side, where the columns that read it are zero, and its other
weights are frozen. So it adds nothing to the model and gets no gradient but that of these columns, which is shown to
whoever watches and then masked, when it is made: a clipping of norms must not see what is not trained.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from baselines.structure_axes import StructureAxis, structure_axes
from baselines.structures import Kept, structures
from ecospa import coupled_pairs

Watcher = Callable[[str, Tensor], None]
"""Called with an attention module or FFN pair and the whole gradient of its output matrix, in every backward pass."""


class DeadStructures:
    """Keeps all structures dead that are not live.

    Attributes:
        live: attention module or FFN pair -> int64, ascending numbers of its live heads or channels.
        axes: where they lie, while a model is attached.
    """

    def __init__(self) -> None:
        self.live: dict[str, Tensor] = {}
        self.axes: dict[str, list[StructureAxis]] = {}
        self._model: nn.Module | None = None
        self._hooks: list[Any] = []
        self._columns: dict[str, Tensor] = {}  # dead positions in the output matrix
        self._held: list[tuple[nn.Parameter, int, Tensor, Tensor]] = []  # parameter, axis, dead positions, values

    def begin(self, model: nn.Module, live: Mapping[str, Tensor]) -> None:
        """Kill all but the live structures of a dense model."""
        self.detach()
        self.live = dict(live)
        for name, axes in structure_axes(model).items():
            part = _output(axes)
            _zero(model.get_parameter(part.parameter), part.axis, part.positions[self._dead(name, part)])

    def attach(self, model: nn.Module, watch: Watcher) -> None:
        """Meet the model that will be trained.

        Raises:
            ValueError: it is another model than the one attached, is frozen, or what should be dead in it is not.
        """
        if self._model is model:
            return
        if self._model is not None:
            raise ValueError("the model is not the one of the hooks before; give every hook the same, unwrapped model")
        axes = structure_axes(model)
        for name, own in axes.items():
            part = _output(own)
            if name not in self.live or int(self.live[name].max()) >= len(part.positions):
                raise ValueError(f"{name}: the model is not of the saved state's shape; load the model saved with it")
            weight, dead = model.get_parameter(part.parameter), part.positions[self._dead(name, part)].flatten()
            if not weight.requires_grad:
                raise ValueError(f"{part.parameter} is frozen; nothing can grow where no gradient is, so train it")
            if bool(weight.index_select(part.axis, dead).any()):
                raise ValueError(f"{name}: what should be dead is not zero; load the model saved with this state")
        self._model, self.axes = model, axes
        for name, own in axes.items():
            hook = functools.partial(self._masked, name, watch)
            weight = model.get_parameter(_output(own).parameter)
            self._hooks.append(weight.register_hook(hook))
        self._hold()

    def detach(self) -> None:
        """Let go of the model."""
        for hook in self._hooks:
            hook.remove()
        self._model, self.axes, self._hooks, self._columns, self._held = None, {}, [], {}, []

    def output(self, name: str) -> tuple[nn.Parameter, StructureAxis]:
        """The matrix that reads the structures of a module, and where."""
        assert self._model is not None  # attached
        part = _output(self.axes[name])
        return self._model.get_parameter(part.parameter), part

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what is dead, whatever the optimizer's weight decay made of it."""
        for parameter, axis, positions, values in self._held:
            parameter.index_copy_(axis, positions.to(parameter.device), values.to(parameter.device))

    def change(self, live: Mapping[str, Tensor], optimizer: Any = None) -> None:
        """Other structures are live from now on; those that come begin at zero on their output side.

        Args:
            live: attention module or FFN pair -> int64, ascending; modules that are not named stay as they are.
            optimizer: its state, and the gradient, of what dies or comes to life becomes zero.
        """
        assert self._model is not None  # attached
        for name, new in live.items():
            old, self.live[name] = self.live[name], new
            gone, come = old[~torch.isin(old, new)], new[~torch.isin(new, old)]
            weight, part = self.output(name)
            _zero(weight, part.axis, part.positions[gone])
            for part in self.axes[name]:
                parameter = self._model.get_parameter(part.parameter)
                state = {} if optimizer is None else optimizer.state.get(parameter, {})
                for value in (parameter.grad, *state.values()):
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        _zero(value, part.axis, part.positions[torch.cat([gone, come])])
        self._hold()

    def removed(self, model: nn.Module) -> int:
        """Parameters that the model stores for what is dead."""
        available = structures(model)
        counts, costs = (
            {**available.heads, **available.channels},
            {**available.head_parameters, **available.channel_parameters},
        )
        return sum((counts[name] - len(numbers)) * costs[name] for name, numbers in self.live.items())

    def widths(self, model: nn.Module) -> dict[str, int]:
        """Width per pair as it is when what is dead has been cut."""
        widths = {pair.name: pair.width for pair in coupled_pairs(model)}
        return widths | {name: len(numbers) for name, numbers in self.live.items() if name in widths}

    def kept(self, model: nn.Module) -> Kept:
        """The live structures, for `cut`."""
        heads, channels = structures(model).heads, structures(model).channels
        return Kept(
            {name: numbers for name, numbers in self.live.items() if name in heads},
            {name: numbers for name, numbers in self.live.items() if name in channels},
        )

    def state_dict(self) -> dict[str, list[int]]:
        """JSON-able state; the frozen values stand in the model's checkpoint."""
        return {name: numbers.tolist() for name, numbers in self.live.items()}

    def load_state_dict(self, state: Mapping[str, list[int]]) -> None:
        """Continue from `state_dict`; `attach` makes it act on a model again."""
        self.detach()
        self.live = {name: torch.tensor(own, dtype=torch.int64, device="cpu") for name, own in state.items()}

    def _dead(self, name: str, part: StructureAxis) -> Tensor:
        """(structures,), True where one is dead."""
        dead = torch.ones(len(part.positions), dtype=torch.bool, device="cpu")
        dead[self.live[name]] = False
        return dead

    def _hold(self) -> None:
        assert self._model is not None  # attached
        self._held = []
        for name, axes in self.axes.items():
            for part in axes:
                parameter = self._model.get_parameter(part.parameter)
                positions = part.positions[self._dead(name, part)].flatten()
                values = parameter.detach().index_select(part.axis, positions.to(parameter.device))
                self._held.append((parameter, part.axis, positions, values))
                if part.output:
                    self._columns[name] = positions

    def _masked(self, name: str, watch: Watcher, grad: Tensor) -> Tensor:
        watch(name, grad)
        return grad.index_fill(_output(self.axes[name]).axis, self._columns[name].to(grad.device), 0)


def _output(axes: list[StructureAxis]) -> StructureAxis:
    return next(part for part in axes if part.output)


@torch.no_grad()
def _zero(value: Tensor, axis: int, positions: Tensor) -> None:
    value.index_fill_(axis, positions.flatten().to(value.device), 0)
