"""Another forward for the user's own module, by swapping its class: the object, its hooks and its place stay.

The new class is a subclass of the old one, so everything that looks for the old class still finds the module.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn


class Swapped:
    """Base of a forward that takes the place of another class's, over the parameters of that class.

    Attributes:
        prefix: of the name of the subclass.
    """

    prefix: ClassVar[str]
    original: ClassVar[type[nn.Module]]
    mixin: ClassVar[type[Swapped]]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # the class is made at run time: pickle and deepcopy rebuild it from its two importable parents
        return _new_module, (type(self).original, type(self).mixin), self.__dict__


def _new_module(original: type[nn.Module], mixin: type[Swapped]) -> nn.Module:
    return nn.Module.__new__(swapped_class(original, mixin))


def swapped_class(original: type[nn.Module], mixin: type[Swapped]) -> type[nn.Module]:
    """The subclass of `original` that runs with the forward of `mixin`; made once, so that classes compare equal."""
    key = (original, mixin)
    if key not in _CLASSES:
        namespace = {"original": original, "mixin": mixin, "__module__": mixin.__module__, "__doc__": mixin.__doc__}
        _CLASSES[key] = type(f"{mixin.prefix}{original.__name__}", (mixin, original), namespace)
    return _CLASSES[key]


_CLASSES: dict[tuple[type[nn.Module], type[Swapped]], type[nn.Module]] = {}


def original_class(module: nn.Module) -> type[nn.Module]:
    """The class that a module had before it was swapped."""
    original: type[nn.Module] = getattr(type(module), "original", type(module))
    return original
