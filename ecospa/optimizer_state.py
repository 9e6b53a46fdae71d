"""State that an optimizer keeps of a parameter, and its cut (paper: optimizer state leaves with the weights)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from ecospa.optimizer_trial import key_of, verdict_of
from ecospa.optimizers import all_of, held_parameters, held_twice, names_of
from ecospa.state_layout import Cut, Layout, OptimizerStateError, cut_entries, sliced, unknown_entry

__all__ = [
    "Cut",
    "InexactOptimizerWarning",
    "OptimizerStateError",
    "check_held",
    "check_optimizers",
    "check_state",
    "cut_state",
    "sliced",
]

_WAY_OUT = (
    "use one that keeps state of the parameter's shape, such as AdamW, SGD or Lion, or cut before training: "
    "plan_shrink and apply_plan without an optimizer, then build it"
)
_TOLD: set[Any] = set()


class InexactOptimizerWarning(UserWarning):
    """After a cut, this optimizer trains on, but not as if the removed entries had been zero all along."""


def check_optimizers(model: nn.Module, optimizer: Any) -> None:
    """Refuse an optimizer that cannot go on after a cut, before any step is lost; warn of one that is not exact.

    An optimizer whose update of an entry depends on the whole matrix (its norm, its mean, its singular vectors) sees
    the size of the matrix too, so training after a cut is not quite training of the masked dense model.

    Args:
        model: the model that is to be cut.
        optimizer: None, an optimizer, or several that share the parameters among them.

    Raises:
        OptimizerStateError: two hold the same parameter; or after a cut the step of one fails, or its state cannot be
            cut: the message says why.

    Deviation: the paper trains with Adam alone and tries no other optimizer.
    """
    if twice := held_twice(optimizer):
        for name, parameter in model.named_parameters():
            if id(parameter) in twice:
                first, second = twice[id(parameter)]
                raise OptimizerStateError(
                    f"{name}: both the {first} and the {second} hold this parameter, and would both move it; "
                    "give every parameter to one optimizer"
                )
    for one in all_of(optimizer):
        verdict, name = verdict_of(one), type(one).__name__
        if verdict.refusal is not None:
            raise OptimizerStateError(f"{name} cannot train a model that is cut: {verdict.refusal}; {_WAY_OUT}")
        if verdict.difference and (key := key_of(one)) not in _TOLD:
            message = (
                f"{name}: training after a cut is not exactly that of the masked dense model, because an update "
                "depends on the whole matrix; on small matrices the weights differ by up to "
                f"{verdict.difference:.1g} of the distance that they move"
            )
            warnings.warn(message, InexactOptimizerWarning, stacklevel=3)
            _TOLD.add(key)  # not where the warning is an error: then nothing has begun


def check_held(model: nn.Module, names: Iterable[str], optimizer: Any) -> None:
    """Refuse an optimizer that does not train a model's coupled weights, before any step is lost.

    Args:
        model: the model that is to be cut.
        names: of the parameters that may be cut.
        optimizer: an optimizer, or several that share the parameters among them.

    Raises:
        OptimizerStateError: names the first parameter that it does not hold, or why it cannot go on after a cut.
    """
    check_optimizers(model, optimizer)
    held = held_parameters(optimizer)
    for name in names:
        parameter = model.get_parameter(name)
        if parameter.requires_grad and id(parameter) not in held:
            raise OptimizerStateError(
                f"{name}: the {names_of(optimizer)} does not hold this parameter; build it from the parameters of "
                "this very model"
            )


def check_state(model: nn.Module, optimizer: Any, cuts: Mapping[str, Cut]) -> None:
    """Refuse optimizers whose state cannot be cut with the parameters, before anything is.

    Args:
        model: the model that is about to be cut.
        optimizer: None, an optimizer, or several that share the parameters among them.
        cuts: what is cut of which parameter.

    Raises:
        OptimizerStateError: a parameter that trains is held by none of them or by two, has state of unknown layout, or
            the optimizer cannot go on after a cut.
    """
    optimizers = all_of(optimizer)
    if not optimizers or not cuts:
        return
    held = held_parameters(optimizers)
    for name, cut in cuts.items():
        parameter = model.get_parameter(name)
        if parameter.requires_grad and id(parameter) not in held:
            raise OptimizerStateError(
                f"{name}: the {names_of(optimizers)} does not hold this parameter, so its state would go stale; "
                "give the optimizer that trains this very model, or every one of several"
            )
        for one in optimizers:
            if (unknown := unknown_entry(one.state, parameter, cut, layout_of(one, parameter))) is not None:
                raise OptimizerStateError(
                    f"{name}: {type(one).__name__} {unknown}; "
                    "only state of the parameter's shape, factored rows and columns, and scalars can be cut; "
                    "use such an optimizer, or make it anew after the event"
                )
    check_optimizers(model, optimizers)


def cut_state(parameter: nn.Parameter, cut: Cut, optimizer: Any) -> Iterator[tuple[Any, Any, Tensor]]:
    """The state of one parameter as it is after a cut; nothing is assigned.

    Args:
        parameter: as it is before the cut.
        cut: axis and positions that stay.
        optimizer: None, an optimizer, or several.

    Returns:
        (container, key, new tensor) of every entry that changes: `container[key] = new tensor` cuts it. The container
        is the parameter's state in its optimizer, or a list or dictionary inside it.
    """
    for one in all_of(optimizer):
        yield from cut_entries(one.state, parameter, cut, layout_of(one, parameter))


def layout_of(optimizer: Any, parameter: Tensor) -> Layout:
    """Return what a trial learned about an optimizer's state; only asked where the parameter has some."""
    return verdict_of(optimizer).layout if parameter in optimizer.state else Layout()
