"""Runtime check of the tensor shapes that the signatures of `ecospa` state; `conftest.py` switches it on.

Only annotations that hold a tensor shape are checked. Plain types are mypy's work, and checking them here as well would
hide the errors that a user sees: `EcoSpaConfig(interval=1.5)` must raise the ConfigError that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its shape annotations checked at every call, all others left alone.

    Args:
        function: its annotations are types, not strings; jaxtyping resolves them before it calls this.
    """
    shaped = {name: hint for name, hint in function.__annotations__.items() if holds_shape(hint)}
    if not shaped:
        return function
    function.__annotations__ = shaped
    return beartype(function)


def holds_shape(hint: Any) -> bool:
    """Return whether a tensor shape stands in the annotation: `Float[...]` itself, or inside a dict, tuple, union."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(holds_shape(part) for part in get_args(hint))
