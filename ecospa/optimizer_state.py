"""What an optimizer keeps of a parameter, and how it is cut along (paper: optimizer state leaves with the weights)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Int64
from torch import Tensor, nn

from ecospa.optimizers import all_of, held_parameters, names_of

Cut = tuple[int, Int64[Tensor, " positions"]]
"""An axis and the positions along it that stay."""

_FACTORED = {
    "exp_avg_sq_row": -1,  # transformers' Adafactor: the parameter's shape without its last axis
    "exp_avg_sq_col": -2,  # without the last but one
}


class OptimizerStateError(ValueError):
    """Optimizer state that cannot be cut with its parameter; the message names optimizer, parameter and entry."""


def check_state(model: nn.Module, optimizer: Any, cuts: Mapping[str, Cut]) -> None:
    """Refuse optimizers whose state cannot be cut with the parameters, before anything is.

    Args:
        model: the model that is about to be cut.
        optimizer: None, an optimizer, or several that share the parameters among them.
        cuts: what is cut of which parameter.

    Raises:
        OptimizerStateError: a parameter that trains is held by none of them, or has state of unknown layout.
    """
    if not (optimizers := all_of(optimizer)):
        return
    held = held_parameters(optimizers)
    for name, cut in cuts.items():
        parameter = model.get_parameter(name)
        if parameter.requires_grad and id(parameter) not in held:
            raise OptimizerStateError(
                f"{name}: the {names_of(optimizers)} does not hold this parameter, so its state would go stale; "
                "give the optimizer that trains this very model"
            )
        for one in optimizers:
            for key, value in one.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and _state_axis(key, value, parameter, cut) is None:
                    raise OptimizerStateError(
                        f"{name}: {type(one).__name__} state {key!r} has shape {tuple(value.shape)}, "
                        f"the parameter {tuple(parameter.shape)}; "
                        "only state of the parameter's shape, factored rows and columns, and scalars can be cut; "
                        "use such an optimizer, or make it anew after the event"
                    )


def cut_state(parameter: nn.Parameter, cut: Cut, optimizer: Any) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """The state of one parameter as it is after a cut; nothing is assigned.

    Args:
        parameter: as it is before the cut.
        cut: axis and positions that stay.
        optimizer: None, an optimizer, or several.

    Returns:
        (state of the parameter in its optimizer, key, new tensor) of every entry that changes.
    """
    for one in all_of(optimizer):
        state = one.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and (axis := _state_axis(key, value, parameter, cut)) not in (None, -1):
                yield state, key, sliced(value, axis, cut[1])


def sliced(value: Tensor, axis: int, positions: Tensor) -> Tensor:
    """A copy of its own: a view would keep the whole storage alive."""
    return value.index_select(axis, positions.to(value.device)).contiguous()


def _state_axis(key: str, value: Tensor, parameter: Tensor, cut: Cut) -> int | None:
    """Axis of a state tensor to cut; -1 leaves it as it is; None is an unknown layout."""
    axis = cut[0]
    if value.shape == parameter.shape:
        return axis
    if value.ndim == 0 or value.shape == (1,):
        return -1
    if key in _FACTORED and parameter.ndim > 1:
        dropped = _FACTORED[key] % parameter.ndim
        expected = [size for position, size in enumerate(parameter.shape) if position != dropped]
        if list(value.shape) != expected:
            return None
        return -1 if axis == dropped else axis - (axis > dropped)
    # torch's Adafactor: factored state broadcasts against the parameter
    if value.ndim == parameter.ndim and all(a in (1, b) for a, b in zip(value.shape, parameter.shape, strict=True)):
        return -1 if value.shape[axis] == 1 else axis
    return None
