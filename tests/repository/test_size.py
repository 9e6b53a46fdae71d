"""No module over 400 lines, no function over 60: what does not fit in the head is split."""

from __future__ import annotations

from pathlib import Path

from tests.repository.source import PACKAGES, ROOT, functions, modules, parse, place

MODULE_LINES = 400
FUNCTION_LINES = 60


def too_long(root: Path) -> list[str]:
    """Modules and functions over the limit, with their length in lines."""
    found = []
    for path in modules(*PACKAGES, root=root):
        length = len(path.read_text(encoding="utf-8").splitlines())
        if length > MODULE_LINES:
            found.append(f"{place(path, root=root)} has {length} lines")
        for node in functions(parse(path)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{place(path, node.lineno, root)} {node.name} has {length} lines")
    return found


def test_modules_and_functions_are_short() -> None:
    assert too_long(ROOT) == []


def test_the_limits_are_exact(tmp_path: Path) -> None:
    folder = tmp_path / "ecospa"
    folder.mkdir()
    (folder / "fits.py").write_text("\n" * MODULE_LINES)
    (folder / "long.py").write_text("\n" * (MODULE_LINES + 1))
    (folder / "function.py").write_text("def fits():" + "\n    1" * (FUNCTION_LINES - 1))
    (folder / "method.py").write_text("class A:\n  async def long(self):" + "\n    1" * FUNCTION_LINES)
    assert too_long(tmp_path) == ["ecospa/long.py has 401 lines", "ecospa/method.py:2 long has 61 lines"]
