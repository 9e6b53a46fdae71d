"""Conditions on a parameter for an exact cut: plain, with plain gradients, alone in its memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ecospa.pairs import UnsupportedModelError
from ecospa.wrappers import named_parameters


def refuse_uncuttable(model: nn.Module, names: Collection[str]) -> None:
    """Refuse parameters whose cut would be another function or would train differently, before anything is cut.

    Args:
        model: the model that is about to be cut.
        names: of the parameters that are cut.

    Raises:
        UnsupportedModelError: names the parameter, what it is, and the way out.
    """
    known = named_parameters(model)
    for name in names:
        _check_parameter(name, known[name])
        _check_gradient(name, known[name], known[name].grad)
    spans = sorted(_spans(known))
    widest = None
    for span in spans:
        if widest is not None and span.start < widest.end and {span.name, widest.name} & set(names):
            raise _refused(
                span.name,
                f"it lies in the same memory as {widest.name}, and what trains one changes the other",
                "give each memory of its own: parameter.data = parameter.data.clone()",
            )
        widest = span if widest is None or span.end > widest.end else widest


class _Span(NamedTuple):
    """Addresses from the first to the last entry of a parameter, on one device."""

    device: str
    start: int
    end: int
    name: str


def _spans(parameters: dict[str, nn.Parameter]) -> Iterator[_Span]:
    for name, parameter in parameters.items():
        if type(parameter) is nn.Parameter and not parameter.is_meta and parameter.numel():
            reach = sum((size - 1) * stride for size, stride in zip(parameter.shape, parameter.stride(), strict=True))
            start = parameter.data_ptr()
            yield _Span(str(parameter.device), start, start + (reach + 1) * parameter.element_size(), name)


def _check_parameter(name: str, parameter: Tensor) -> None:
    if type(parameter) is not nn.Parameter or type(parameter.data) is not Tensor:
        kind = type(parameter) if type(parameter) is not nn.Parameter else type(parameter.data)
        raise _refused(
            name,
            f"it is a {kind.__module__}.{kind.__qualname__}, not a plain parameter",
            "dequantise, gather or unwrap it first",
        )
    if parameter.layout is not torch.strided or not parameter.dtype.is_floating_point:
        raise _refused(
            name, f"it is {parameter.layout} of {parameter.dtype}, not dense floating point", "make it dense first"
        )
    if parameter.is_inference():
        raise _refused(
            name, "it is an inference tensor, which nothing may change", "make the model outside of that mode"
        )


def _check_gradient(name: str, parameter: nn.Parameter, grad: Tensor | None) -> None:
    if grad is None:
        return
    if grad.layout is not torch.strided:
        raise _refused(
            name,
            f"its gradient is {grad.layout}, not dense",
            "cut after optimizer.zero_grad(), or make it dense: parameter.grad = parameter.grad.to_dense()",
        )
    if type(grad) is not Tensor or grad.shape != parameter.shape:
        kind = f"{type(grad).__module__}.{type(grad).__qualname__} of shape {tuple(grad.shape)}"
        raise _refused(
            name,
            f"its gradient is a {kind}, not a plain tensor of the parameter's shape",
            "cut after optimizer.zero_grad()",
        )


def _refused(name: str, reason: str, way_out: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"{name}: {reason}. Way out: {way_out}.")
