"""Installed packages that a pack carries to a machine without a network: pure Python alone, which runs anywhere."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data.zero_shot.harness import DATA

CARRIED = ("tyro", "rich", "datasets", "jaxtyping", "nvidia-ml-py")
"""Packages that a machine for training may lack; their pure-Python requirements are carried with them."""
HARNESS = "lm-eval"
"""Carried where a run needs it: with the tasks that the suite knows, of the thousands that it has."""
_TASKS = "lm_eval/tasks/"
_EVERYWHERE = frozenset(
    {
        "torch",
        "transformers",
        "accelerate",
        "timm",
        "peft",
        "numpy",
        "torchvision",
        "huggingface-hub",
        "fsspec",
        "filelock",
    }
    | {"packaging", "pyyaml", "tqdm", "httpx", "requests", "typing-extensions", "jinja2", "setuptools"}
)
"""torch and transformers, without which a machine is of no use, and what they require; nor is anything carried that
these alone need."""
_COMPILED = {".so", ".pyd", ".dylib"}


@dataclass(frozen=True)
class Distribution:
    """One installed distribution.

    Attributes:
        name: as it is installed by.
        modules: top-level names that are imported from it.
        files: place below a folder of packages -> file; empty where parts are compiled for one kind of machine.
    """

    name: str
    modules: tuple[str, ...]
    files: dict[str, Path]


def distributions(names: Sequence[str] = CARRIED) -> list[Distribution]:
    """The named distributions and all that they require, but for what is everywhere.

    Args:
        names: of installed distributions.

    Raises:
        ValueError: one of them is not installed.
    """
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = _normal(waiting.pop(0))
        if name in found or name in _EVERYWHERE:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            if name in map(_normal, names):
                raise ValueError(f"packages has {name!r}, which is not installed here; install it or name others"
                                 ) from error  # fmt: skip
            continue  # a requirement that nothing here has needed
        found[name] = _read(name, distribution)
        waiting += _requirements(distribution)
    return list(found.values())


def _requirements(distribution: importlib.metadata.Distribution) -> list[str]:
    from packaging.requirements import Requirement  # of transformers: a list of experiments does without

    read = [Requirement(text) for text in distribution.requires or ()]
    return [one.name for one in read if one.marker is None or one.marker.evaluate({"extra": ""})]


def _read(name: str, distribution: importlib.metadata.Distribution) -> Distribution:
    files = {}
    modules: dict[str, None] = {}
    compiled = False
    for file in distribution.files or ():
        place, path = file.as_posix(), Path(str(file.locate()))
        if place.startswith("..") or "__pycache__" in file.parts or not path.is_file() or not _wanted(place):
            continue
        files[place] = path
        if file.suffix in {".py", *_COMPILED}:
            modules[file.parts[0].partition(".")[0]] = None
        compiled = compiled or file.suffix in _COMPILED
    return Distribution(name, tuple(modules), {} if compiled else files)


def _wanted(place: str) -> bool:
    """Return False for the harness's tasks that the suite does not know."""
    inside = place.removeprefix(_TASKS)
    if inside == place or "/" not in inside:
        return True
    return any(inside.startswith(f"{task.folder}/") for task in DATA.values())


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
