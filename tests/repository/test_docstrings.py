"""Every module says why it exists; everything public in ecospa says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.repository.source import FOLDERS, ROOT, modules, parse, place

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def silent_modules(root: Path) -> list[str]:
    """Modules without a docstring; an empty file has nothing to explain."""
    return [
        place(path, root=root)
        for path in modules(*FOLDERS, root=root)
        if (tree := parse(path)).body and not ast.get_docstring(tree)
    ]


def public(body: list[ast.stmt]) -> Iterator[Definition]:
    """Public classes, functions and methods; what is nested in a function or a private class is private."""
    for node in body:
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from public(node.body)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def is_overload(node: Definition) -> bool:
    """Return whether the definition only states a further signature: the implementation carries the docstring."""
    return any(ast.unparse(decorator).split(".")[-1] in ("overload", "setter") for decorator in node.decorator_list)


def silent_definitions(root: Path) -> list[str]:
    """Public definitions of ecospa without a docstring."""
    return [
        f"{place(path, node.lineno, root)} {node.name}"
        for path in modules("ecospa", root=root)
        for node in public(parse(path).body)
        if not ast.get_docstring(node) and not is_overload(node)
    ]


def test_every_module_says_why_it_exists() -> None:
    assert silent_modules(ROOT) == []


def test_everything_public_in_ecospa_is_documented() -> None:
    assert silent_definitions(ROOT) == []


def test_missing_docstrings_are_found(tmp_path: Path) -> None:
    for folder, text in (
        ("ecospa", 'class A:\n    """A."""\n    def run(self): ...\n    def _own(self): ...\nasync def go(): ...\n'),
        ("tests", "x = 1\n"),
        ("results", ""),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text(text)
    assert silent_modules(tmp_path) == ["ecospa/module.py", "tests/module.py"]
    assert silent_definitions(tmp_path) == ["ecospa/module.py:3 run", "ecospa/module.py:5 go"]
