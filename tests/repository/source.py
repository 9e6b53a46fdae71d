"""The project's own files, as the repository tests read them: which there are, what a module imports and defines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ecospa", "baselines", "benchmarks", "results", "paper_tables")
FOLDERS = (*PACKAGES, "examples", "tests")

_GENERATED = {"__pycache__", "build", "dist"}
_VISIBLE_DOT_FOLDERS = {".ci", ".github"}


@dataclass(frozen=True)
class Import:
    """One import: the dotted name that is imported, the line, and whether it happens when the module is imported."""

    name: str
    line: int
    at_import: bool


def files(root: Path = ROOT) -> Iterator[Path]:
    """Every file of the project: not the version control's, caches, environments or build output."""
    for path in sorted(root.iterdir()):
        if path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink() and not is_generated(path):
            yield from files(path)


def is_generated(folder: Path) -> bool:
    """Return whether the folder is left by a tool: hidden, a cache, or build output."""
    hidden = folder.name.startswith(".") and folder.name not in _VISIBLE_DOT_FOLDERS
    return hidden or folder.name in _GENERATED or folder.name.endswith(".egg-info")


def modules(*folders: str, root: Path = ROOT) -> list[Path]:
    """Python files of the named top-level folders; a folder that does not exist holds none."""
    return [
        path for folder in folders if (root / folder).is_dir() for path in files(root / folder) if path.suffix == ".py"
    ]


def parse(path: Path) -> ast.Module:
    """Syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def dotted_name(path: Path, root: Path = ROOT) -> str:
    """Name under which a module is imported: ecospa/families/gpt2.py -> ecospa.families.gpt2."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path = ROOT) -> list[Import]:
    """Every import of a module, wherever it stands, relative ones and `import_module("name")` resolved.

    `from package import name` counts as `package.name`, because `name` may be a module.
    """
    package = dotted_name(path, root).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found: list[Import] = []
    _collect(parse(path), package, at_import=True, found=found)
    return found


def _collect(node: ast.AST, package: list[str], *, at_import: bool, found: list[Import]) -> None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or _is_type_checking(node):
        at_import = False
    if isinstance(node, ast.Import):
        found.extend(Import(alias.name, node.lineno, at_import) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        found.extend(Import(f"{base}.{alias.name}", node.lineno, at_import) for alias in node.names)
    elif isinstance(node, ast.Call) and (name := _imported_by_call(node)) is not None:
        found.append(Import(name, node.lineno, at_import))
    for child in ast.iter_child_nodes(node):
        _collect(child, package, at_import=at_import, found=found)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imported_by_call(node: ast.Call) -> str | None:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called not in ("import_module", "__import__") or not node.args:
        return None
    argument = node.args[0]
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def place(path: Path, line: int = 0, root: Path = ROOT) -> str:
    """Format a place for messages: path from the root, and the line."""
    where = path.relative_to(root).as_posix()
    return f"{where}:{line}" if line else where
