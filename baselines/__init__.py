"""baselines: what coupled sparsity is compared with. One method is one file, found by scanning this folder.

Around the method stand the controls that the reviews of the paper asked for: the same model left dense, a small dense
model of the final size, uncoupled removal, and random pairs as the floor that a selection rule must beat.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import traceback
from types import MappingProxyType, ModuleType
from typing import TypeGuard

from baselines.method import Budget, TrainingMethod, TrainingState

__all__ = ["Budget", "TrainingMethod", "TrainingState", "load", "methods"]


@functools.cache
def methods() -> MappingProxyType[str, type[TrainingMethod]]:
    """Every method of this folder by its name, in alphabetical order.

    Raises:
        ValueError: two methods have the same name.
    """
    by_name: dict[str, type[TrainingMethod]] = {}
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        for value in vars(module).values():
            if not _is_method(value) or value.__module__ != module.__name__:
                continue
            if value.name in by_name:
                both = f"{by_name[value.name].__qualname__} and {value.__qualname__}"
                raise ValueError(f"{value.name!r} is the name of {both}; rename one of them")
            by_name[value.name] = value
    return MappingProxyType(dict(sorted(by_name.items())))


def load(location: str) -> type[TrainingMethod]:
    """Find a method by its name here, or a custom method by the place of its class.

    Args:
        location: a name of `methods()`, or "my_package.my_module:MyMethod".

    Returns:
        The class.

    Raises:
        ValueError: there is no such method, module or class, or the class is no TrainingMethod with a name.
    """
    module_name, colon, class_name = location.partition(":")
    if not colon:
        if location not in methods():
            known = ", ".join(methods())
            raise ValueError(f"method is {location!r}; choose one of {known}, or give my_package.my_module:MyMethod")
        return methods()[location]
    if not module_name or not class_name:
        raise ValueError(f"method is {location!r}; give my_package.my_module:MyMethod")
    value = getattr(_imported(module_name, location), class_name, None)
    if not _is_method(value):
        reason = "is no subclass of baselines.TrainingMethod with a `name`" if value is not None else "does not exist"
        raise ValueError(f"method is {location!r}; {class_name} {reason}")
    return value


def _imported(name: str, location: str) -> ModuleType:
    """Import the module of a custom method, whose import may do anything.

    Raises:
        ValueError: it cannot be imported; the message names the method and what went wrong.
        KeyboardInterrupt: passed on, with the method's place.
    """
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"while {location} was imported") from error
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"method is {location!r}; there is no module {error.name!r} on the Python path") from error
        raise ValueError(f"method is {location!r}, whose import failed: {error}") from error
    except BaseException as error:  # SystemExit too: a script that runs on import and ends would end the suite
        what = traceback.format_exception_only(error)[-1].strip()
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"method is {location!r}, whose import failed: {what} ({place.filename}, line {place.lineno}); "
            "a module of methods only defines them: put what it runs under `if __name__ == '__main__':`"
        ) from error


def _is_method(value: object) -> TypeGuard[type[TrainingMethod]]:
    return (
        isinstance(value, type) and issubclass(value, TrainingMethod) and isinstance(getattr(value, "name", None), str)
    )
