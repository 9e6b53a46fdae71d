"""Parts of a transformer block, seen without running it: those that a family knows, and those that it does not.

Cutting is exact for the blocks of the installed transformers and timm. Whoever puts another module, activation, hook,
forward or attention function into one makes another function of it, under names and shapes that look the same.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ecospa.class_swap import original_class

Known = Mapping[str, frozenset[str]]
"""Dotted name of a module within a block -> qualified names of the classes that are known there."""

_TORCH = (
    "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish ReLU ReLU6 SELU SiLU Sigmoid "
    "Softplus Softshrink Softsign Tanh Tanhshrink Threshold"
)
_TRANSFORMERS = (
    "AccurateGELUActivation ClippedGELUActivation FastGELUActivation GELUActivation GELUTanh LaplaceActivation "
    "LinearActivation MishActivation NewGELUActivation QuickGELUActivation ReLUSquaredActivation SiLUActivation "
    "SqrtSoftplusActivation"
)
_TIMM = "GELU GELUTanh HardMish HardSigmoid HardSwish Mish QuickGELU Sigmoid Swish Tanh"
LINEAR = frozenset({"torch.nn.modules.linear.Linear"})
CONV1D = frozenset({"transformers.pytorch_utils.Conv1D"})
IDENTITY = frozenset({"torch.nn.modules.linear.Identity"})
DROPOUT = frozenset({"torch.nn.modules.dropout.Dropout"})
LAYER_NORM = frozenset({"torch.nn.modules.normalization.LayerNorm"})
MODULE_LIST = frozenset({"torch.nn.modules.container.ModuleList"})
ACTIVATION = IDENTITY | frozenset(
    f"{home}.{name}"
    for home, names in (
        ("torch.nn.modules.activation", _TORCH),
        ("transformers.activations", _TRANSFORMERS),
        ("timm.layers.activations", _TIMM),
    )
    for name in names.split()
)
"""Activations that treat every unit alone; their value at zero does not matter, because it meets removed weights."""

_LIBRARIES = ("torch", "transformers", "timm", "ecospa")
_FORMULAS = ("gelu", "mish", "_gelu_python", "_gelu_tanh_python", "_mish_python")
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_EXPECTED = ("_gradient_checkpointing_func", "_compiled_call_impl")


def qualified(kind: type) -> str:
    """Module and name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def foreign_parts(block: nn.Module, known: Known) -> dict[str, str]:
    """List the parts of a block that its family does not know.

    Args:
        block: a transformer block, cut or whole.
        known: classes of its family.

    Returns:
        Dotted name within the block ("" is the block itself) -> what is foreign there, in words.
    """
    found: dict[str, str] = {}
    for name, module in block.named_modules():
        reasons = (*_class_reasons(module, known.get(name, frozenset())), *_instance_reasons(module))
        if reasons:
            found[name] = reasons[0]
    everywhere = (*_function_reasons(block), *_global_reasons())
    if everywhere:
        found.setdefault("", everywhere[0])
    return found


def _class_reasons(module: nn.Module, known: frozenset[str]) -> Iterator[str]:
    kind = original_class(module)
    if qualified(kind) not in known or getattr(sys.modules.get(kind.__module__), kind.__name__, None) is not kind:
        yield f"{qualified(kind)} is a module of your own here"
        return
    if qualified(kind) in MODULE_LIST:  # it has no forward
        return
    owner = next(parent for parent in kind.__mro__ if "forward" in vars(parent))
    if not _is_native(vars(owner)["forward"], owner.__module__, f"{owner.__qualname__}.forward"):
        yield f"the forward of {qualified(kind)} was replaced"
    elif not _is_of_library(kind.__call__):
        yield f"the call of {qualified(kind)} was replaced"


def _instance_reasons(module: nn.Module) -> Iterator[str]:
    for name, value in vars(module).items():
        if callable(value) and name not in _EXPECTED and not _is_formula(module, value):
            yield "its forward was replaced on the instance" if name == "forward" else f"it calls {name} of your own"
    for kind in _HOOKS:
        for hook in vars(module)[kind].values():
            if not _is_of_library(hook):
                yield f"a hook of your own hangs on it ({getattr(hook, '__qualname__', type(hook).__qualname__)})"


def _function_reasons(block: nn.Module) -> Iterator[str]:
    """Functions that the forwards of a block look up by name, and the attention function that its config names."""
    seen: set[int] = set()
    for module in block.modules():
        forward = inspect.unwrap(original_class(module).forward)
        for name, function in _looked_up(forward, seen):
            if not _is_native(function, None, name):
                yield f"{forward.__globals__['__name__']}.{name} was replaced"
    for module in block.modules():
        named = getattr(getattr(module, "config", None), "_attn_implementation", None)
        if named not in (None, "eager") and "transformers.modeling_utils" in sys.modules:
            functions: Any = sys.modules["transformers.modeling_utils"].ALL_ATTENTION_FUNCTIONS
            if named not in functions or not _is_of_library(functions[named]):
                yield f"its attention function {named!r} is your own"
            return


def _global_reasons() -> Iterator[str]:
    if not inspect.isbuiltin(nn.functional.scaled_dot_product_attention):
        yield "torch's scaled_dot_product_attention was replaced"
    for kind in ("forward_pre_hooks", "forward_hooks", "backward_pre_hooks", "backward_hooks"):
        hooks: Mapping[int, Any] = getattr(torch.nn.modules.module, f"_global_{kind}")
        if not all(_is_of_library(hook) for hook in hooks.values()):
            yield "a hook of your own hangs on all modules"


def _looked_up(function: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Python functions that a function calls by their names in its module, and those that they call there."""
    code = getattr(function, "__code__", None)
    if code is None or id(code) in seen:
        return
    seen.add(id(code))
    for name in code.co_names:
        called = function.__globals__.get(name)
        if inspect.isfunction(called):
            yield name, called
            yield from _looked_up(inspect.unwrap(called), seen)


def _layers(function: Any) -> Iterator[Any]:
    """A function, and what it wraps."""
    while function is not None:
        yield function
        function = (
            getattr(function, "__func__", None)
            or getattr(function, "__wrapped__", None)
            or getattr(function, "func", None)
        )


def _is_of_library(function: Any) -> bool:
    """Return whether every layer of a function was written in one of the libraries, whatever it claims."""
    for layer in _layers(function):
        if (names := getattr(layer, "__globals__", None)) is not None:
            if names["__name__"].partition(".")[0] not in _LIBRARIES:
                return False
        elif not isinstance(layer, (types.MethodType, types.BuiltinFunctionType, functools.partial)):
            return False
    return True


def _is_native(function: Any, home: str | None, name: str) -> bool:
    """Return whether a function is the one that its library defines under a name, in a module where one is given."""
    *_, inner = _layers(function)
    code = getattr(inner, "__globals__", None)
    if code is None or not _is_of_library(function):
        return False
    return inner.__qualname__ == name and home in (None, code["__name__"])


def _is_formula(module: nn.Module, value: Any) -> bool:
    *_, inner = _layers(value)
    known = qualified(original_class(module)) in ACTIVATION
    return known and _is_of_library(value) and getattr(inner, "__name__", "") in _FORMULAS


def fingerprint(block: nn.Module, foreign: Mapping[str, str]) -> tuple[Hashable, ...]:
    """Return what a verdict on a block rests on: equal as long as nothing in it is replaced, whatever its widths.

    Args:
        block: a transformer block.
        foreign: of `foreign_parts`.
    """
    parts: list[Hashable] = [tuple(foreign.items())]
    for name, module in block.named_modules():
        hooks = tuple(_token(hook) for kind in _HOOKS for hook in vars(module)[kind].values())
        own = sorted(vars(module).items()) if name in foreign else []
        values = tuple((key, _token(value)) for key, value in own if _is_plain(value) and key != "training")
        called = tuple((key, _token(value)) for key, value in vars(module).items() if callable(value))
        parts.append((name, original_class(module), _token(original_class(module).forward), hooks, values, called))
    named = [getattr(getattr(module, "config", None), "_attn_implementation", None) for module in block.modules()]
    parts.append(next((name for name in named if name is not None), None))
    return tuple(parts)


class _Same:
    """Equal to another only while both stand for one living object: an address may be used again."""

    def __init__(self, value: Any) -> None:
        try:
            self._value: Callable[[], Any] = weakref.ref(value)
        except TypeError:
            self._value = lambda: None
        self._hash = id(value)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine = self._value()
        return isinstance(other, _Same) and mine is not None and mine is other._value()


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str, bytes, type(None), torch.dtype))


def _token(value: Any, depth: int = 4) -> Hashable:
    """Something that is equal for functions that do the same: one code, defaults and closure."""
    if _is_plain(value):
        return (type(value), value)
    if depth and isinstance(value, types.MethodType):
        holder = original_class(value.__self__) if isinstance(value.__self__, nn.Module) else _Same(value.__self__)
        return ("method", _token(value.__func__, depth - 1), holder)
    if depth and isinstance(value, functools.partial):
        bound = (*value.args, *value.keywords.values())
        return ("partial", _token(value.func, depth - 1), *(_token(item, depth - 1) for item in bound), *value.keywords)
    if depth and isinstance(value, types.FunctionType):
        inside = [cell.cell_contents for cell in value.__closure__ or ()]
        held = (*inside, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return (value.__globals__["__name__"], value.__code__, *(_token(item, depth - 1) for item in held))
    return _Same(value)
