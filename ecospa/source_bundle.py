"""Definitions of this package as one self-contained source text, for files that must run where ecospa is not installed.

A definition is taken as it is written, with everything of the package that it names, and with the imports of other
libraries that these need. Annotations are left as text, so that what only they name is not needed.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_PACKAGE = "ecospa"
_Named = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


class Definition(NamedTuple):
    """One top-level definition: the dotted name of its module, and its own name."""

    module: str
    name: str


class _Module(NamedTuple):
    """A parsed module: its text, its definitions, and its imports by the name that they bind."""

    lines: list[str]
    defined: dict[str, _Named]
    imported: dict[str, tuple[str, str | None]]


def bundle(roots: Sequence[Definition], about: str) -> str:
    """Source of some definitions and of all that they need of this package.

    Args:
        roots: what is wanted; they and what they need stand in the order in which Python can run them.
        about: docstring of the text.

    Returns:
        A module that imports nothing of this package.

    Raises:
        ValueError: a definition is not where it is said to be, a module of this package is used as a whole, or a name
            has two definitions.
    """
    order: dict[Definition, None] = {}
    imports: dict[str, tuple[str, str | None]] = {}
    for root in roots:
        _collect(root, order, imports)
    names = [definition.name for definition in order]
    if len(set(names)) < len(names):
        raise ValueError(f"two definitions are called {next(name for name in names if names.count(name) > 1)}")
    parts = [f'"""{about}"""', "from __future__ import annotations", "\n".join(_import_lines(imports))]
    return "\n\n".join(parts) + "".join(f"\n\n\n{_source(definition)}" for definition in order) + "\n"


def _collect(wanted: Definition, order: dict[Definition, None], imports: dict[str, tuple[str, str | None]]) -> None:
    """Put a definition behind what it needs; functions need their names only once they are called."""
    if wanted in order:
        return
    module = _parsed(wanted.module)
    if wanted.name not in module.defined:
        raise ValueError(f"{wanted.module} defines no {wanted.name}; name the module that does")
    node, later = module.defined[wanted.name], []
    for name in _names(node):
        if name in module.defined and name != wanted.name:
            needed = Definition(wanted.module, name)
        elif name in module.imported and (source := module.imported[name])[0].partition(".")[0] == _PACKAGE:
            if source[1] is None:
                raise ValueError(f"{wanted.module} uses the module {source[0]} as a whole")
            needed = Definition(source[0], source[1])
        else:
            if name in module.imported:
                imports[name] = module.imported[name]
            continue
        if isinstance(node, ast.FunctionDef):
            later.append(needed)
        else:
            _collect(needed, order, imports)
    order[wanted] = None
    for needed in later:
        _collect(needed, order, imports)


def _names(node: ast.AST) -> Iterator[str]:
    """Names that a definition looks up when it runs: annotations are text."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load):
                yield child.id
            if isinstance(child, ast.AST):
                yield from _names(child)


@functools.cache
def _parsed(name: str) -> _Module:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None  # a module of this package
    text = Path(spec.origin).read_text(encoding="utf-8")
    defined: dict[str, _Named] = {}
    imported: dict[str, tuple[str, str | None]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {target.id: node for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: (alias.name, None) for alias in node.names}
    return _Module(text.splitlines(), defined, imported)


def _source(definition: Definition) -> str:
    module = _parsed(definition.module)
    node = module.defined[definition.name]
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    return "\n".join(module.lines[first - 1 : node.end_lineno])


def _import_lines(imports: dict[str, tuple[str, str | None]]) -> list[str]:
    lines = []
    for name, (module, member) in sorted(imports.items(), key=lambda item: (item[1][0], item[0])):
        if module == "__future__":
            continue
        what = member or module
        renamed = "" if name == what else f" as {name}"
        lines.append(f"import {module}{renamed}" if member is None else f"from {module} import {member}{renamed}")
    return lines
