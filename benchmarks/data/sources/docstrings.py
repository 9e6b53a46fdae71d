"""English text that is on every machine: the docstrings that the installed packages carry.

The smoke tier must run on any laptop without a network and still train on real prose. Files are parsed with `ast`,
nothing is imported, and their order follows the hash of their names, so that the text is the same for the same package
versions. A file belongs to one split as a whole; a docstring found twice is kept once.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from benchmarks.data.source import Corpus, MissingSourceError, Source

PACKAGES = ("numpy", "torch", "scipy", "scikit-learn", "pandas", "matplotlib")
_FOLDERS = {"scikit-learn": "sklearn"}
_STANDARD_LIBRARY = "python"
_SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"})
_SHORTEST = 200  # characters: shorter docstrings are mostly single phrases
_LARGEST_FILE = 200_000  # bytes: a few generated files would take longer to parse than all others
_DEFAULT_BYTES = 1_500_000
_EVALUATION_SHARE = 10  # one file in ten


def load(configuration: str, split: str, tier: str, train_bytes: int | None) -> Corpus:
    """Docstrings of the standard library and of the installed scientific packages, about equally much of each.

    Raises:
        MissingSourceError: not even the standard library's sources are installed.
    """
    packages = roots()
    if not packages:
        raise MissingSourceError(missing(configuration, tier) or "")
    train: list[str] = []
    evaluation: list[str] = []
    seen: set[str] = set()
    for name, root in packages.items():
        quota = (train_bytes or _DEFAULT_BYTES) // len(packages)
        for held_out, _, text in documents(name, root):
            if quota <= 0:
                break
            if text in seen:
                continue
            seen.add(text)
            (evaluation if held_out else train).append(text)
            quota -= 0 if held_out else len(text.encode())
    return Corpus(_shuffled(train), _shuffled(evaluation))


def key(configuration: str) -> str:
    """Versions of Python and of the packages read."""
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in roots() if name != _STANDARD_LIBRARY]
    return ";".join([f"python=={platform.python_version()}", *versions])


def missing(configuration: str, tier: str) -> str | None:
    """Return the reason there is no text, or None: only an installation without source files has none."""
    if roots():
        return None
    return (
        f"source 'docstrings', tier {tier!r}: neither the standard library nor any of {', '.join(PACKAGES)} is "
        "installed as source files. Either install one of them (pip install numpy), or take tier 'cpu' and its data."
    )


def roots() -> dict[str, Path]:
    """Folders of the standard library and of the packages that are installed as source files, by name."""
    candidates = {_STANDARD_LIBRARY: Path(sysconfig.get_paths()["stdlib"])}
    for name in PACKAGES:
        spec = importlib.util.find_spec(_FOLDERS.get(name, name))
        if spec is not None and spec.submodule_search_locations:
            candidates[name] = Path(next(iter(spec.submodule_search_locations)))
    return {
        name: root for name, root in candidates.items() if (root / "__init__.py").exists() or name == _STANDARD_LIBRARY
    }


def documents(package: str, root: Path) -> Iterator[tuple[bool, str, str]]:
    """(held out, name of what is documented, docstring) of one package, files in the order of the hash of their names.

    A file is held out as a whole; the name is that of the function, the class or the module.
    """
    relative = (path.relative_to(root) for path in root.rglob("*.py"))
    named = ((_number(f"{package}/{path.as_posix()}"), path) for path in relative if not _SKIPPED & set(path.parts))
    for number, path in sorted(named):
        for name, text in _docstrings(root / path):
            yield number % _EVALUATION_SHARE == 0, name, text


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    source = path.read_bytes()
    if len(source) > _LARGEST_FILE or b'"""' not in source:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's files are not ours to report
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # templates and files for other Python versions lie about in packages
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "").strip()
            if len(text) >= _SHORTEST:
                yield getattr(node, "name", path.stem), text.encode(errors="replace").decode()


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _shuffled(documents: list[str]) -> tuple[str, ...]:
    return tuple(sorted(documents, key=_number))


SOURCE = Source("docstrings", load, key, missing)
